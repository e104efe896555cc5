"""The hierarchy of PCI as data: functions below their bridges, and virtual functions below their physical one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vfioctl.model import PciFunction
from vfioctl.policy.pci_config import is_gone

_BRIDGES = ("0604", "0607", "0609")
_HEADER_TYPE, _SECONDARY, _SUBORDINATE = 0x0E, 0x19, 0x1A


class Branch(NamedTuple):
    """A function and what hangs on it. ``buses``: the numbers of the first and the last bus behind a bridge; empty for
    none, None where they cannot be told."""

    function: PciFunction
    is_bridge: bool
    buses: tuple[int, ...] | None
    below: tuple[Branch, ...]
    virtual: tuple[Branch, ...]


class Root(NamedTuple):
    """A root bus by domain and number (``0000:00``); ``owner`` is the VMD endpoint whose domain it is in."""

    bus: str
    owner: str | None
    branches: tuple[Branch, ...]


def grow(functions: Sequence[PciFunction]) -> tuple[Root, ...]:
    """Every function in its place, once, in the order given; on the root bus where its bridge is not among them."""
    places = _places(functions)
    hanging: defaultdict[str, list[PciFunction]] = defaultdict(list)
    roots: defaultdict[tuple[str, str | None], list[PciFunction]] = defaultdict(list)
    for function in functions:
        above = places[function.address]
        if above is None:
            roots[function.root_bus.removeprefix("pci"), function.domain_owner].append(function)
        else:
            hanging[above].append(function)
    return tuple(
        Root(bus, owner, tuple(_branch(each, hanging) for each in found))
        for (bus, owner), found in roots.items()
    )


def walk(branches: Iterable[Branch]) -> Iterator[Branch]:
    """All branches, each before what hangs on it: virtual functions, then what is behind it."""
    for branch in branches:
        yield branch
        yield from walk(branch.virtual)
        yield from walk(branch.below)


def select(
    functions: Sequence[PciFunction],
    wanted: Callable[[PciFunction], bool],
    tops: Collection[str] | None = None,
) -> tuple[PciFunction, ...]:
    """The functions that are ``wanted``, and their way up to the root bus, or of VMD's domain to VMD's own.

    ``tops``: only these addresses and what is below them.
    """
    places = dict(_places(functions))
    for function in functions:
        if places[function.address] is None and function.domain_owner in places:
            places[function.address] = function.domain_owner
    kept: set[str] = set()
    for function in functions:
        way = _way(function.address, places)
        if wanted(function) and (tops is None or not way.isdisjoint(tops)):
            kept |= way
    return tuple(function for function in functions if function.address in kept)


def _places(functions: Sequence[PciFunction]) -> Mapping[str, str | None]:
    """Address to the address above it. A VF is a sibling of its PF in sysfs, and hangs on it here; so each way up ends
    whatever a tree of files says."""
    by_path = {function.path: function.address for function in functions}
    by_address = {function.address: function for function in functions}
    places: dict[str, str | None] = {}
    for function in functions:
        directory = function.path.rpartition("/")[0]
        physical = by_address.get(function.physfn or "")
        is_sibling = physical is not None and physical.path.rpartition("/")[0] == directory
        if physical is not None and is_sibling and physical.physfn is None:
            places[function.address] = physical.address
        else:
            places[function.address] = by_path.get(directory)
    return places


def _way(address: str, places: Mapping[str, str | None]) -> set[str]:
    way: set[str] = set()
    at: str | None = address
    while at is not None and at not in way:
        way.add(at)
        at = places[at]
    return way


def _branch(function: PciFunction, hanging: Mapping[str, list[PciFunction]]) -> Branch:
    found = [_branch(each, hanging) for each in hanging.get(function.address, ())]
    virtual = tuple(each for each in found if each.function.physfn == function.address)
    below = tuple(each for each in found if each.function.physfn != function.address)
    return Branch(function, is_bridge(function) or bool(below), _buses(function, below), below, virtual)


def is_bridge(function: PciFunction) -> bool:
    """By its header, or by its class where that has not been read."""
    if len(function.config) > _HEADER_TYPE and not is_gone(function.config):
        return function.config[_HEADER_TYPE] & 0x7F in (1, 2)
    return function.ids.class_[:4] in _BRIDGES


def _buses(function: PciFunction, below: Sequence[Branch]) -> tuple[int, ...] | None:
    config = function.config
    if len(config) > _SUBORDINATE and not is_gone(config):
        if not is_bridge(function) or not config[_SECONDARY]:
            return ()
        return config[_SECONDARY], max(config[_SECONDARY], config[_SUBORDINATE])
    if not below:
        return None
    return min(_bus(each) for each in below), max(_bus(each) for each in walk(below))


def _bus(branch: Branch) -> int:
    return int(branch.function.bus.partition(":")[2], 16)
