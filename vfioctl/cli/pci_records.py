"""The public shapes of PCI functions: in their tree, and with the states of their capabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vfioctl.model import PciFunction, PciLink
from vfioctl.policy.pci_config import is_gone
from vfioctl.policy.pci_states import Acs, States, states_of
from vfioctl.policy.pci_tree import Branch, Root
from vfioctl.policy.viability import Viability

#: What the kernel requires of a port before it takes what is below for isolated (drivers/pci/pci.c, REQ_ACS_FLAGS).
_REQUIRED = ("SV", "RR", "CR", "UF")


def root(value: Root, verdicts: Mapping[int, Viability]) -> dict[str, Any]:
    """A root bus with its functions; ``vmd``: the endpoint whose domain it is in."""
    return {
        "bus": value.bus,
        "vmd": value.owner,
        "functions": [branch(each, verdicts) for each in value.branches],
    }


def branch(value: Branch, verdicts: Mapping[int, Viability]) -> dict[str, Any]:
    """A function, and what hangs on it: ``bridge`` is null for what is none."""
    function = value.function
    verdict = None if function.group is None else verdicts.get(function.group)
    states = states_of(function.config)
    bridge = None
    if value.is_bridge:
        domain = function.bus.partition(":")[0]
        first, last = (f"{domain}:{n:02x}" for n in value.buses) if value.buses else (None, None)
        bridge = {
            "secondary": first,
            "subordinate": last,
            "functions": [branch(each, verdicts) for each in value.below],
        }
    return {
        "address": function.address,
        "class": function.ids.class_,
        "vendor": function.ids.vendor,
        "device": function.ids.device,
        "group": function.group,
        "viable": verdict and verdict.viable,
        "usable": verdict and verdict.usable,
        "driver": function.driver,
        "acs": states and acs(states.acs),
        "link": link(function.link),
        "removable": function.removable,
        "asleep": function.asleep,
        "physfn": function.physfn,
        "bridge": bridge,
        "virtual_functions": [branch(each, verdicts) for each in value.virtual],
    }


def walk(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records of some functions and of all that hangs on them, in the order of the drawing."""
    for record in found:
        yield record
        yield from walk(record["virtual_functions"])
        yield from walk(record["bridge"]["functions"] if record["bridge"] else ())


def acs(value: Acs) -> dict[str, Any]:
    """Access control services."""
    return {
        "present": value.present,
        "supported": list(value.supported),
        "enabled": list(value.enabled),
    }


def link(value: PciLink | None) -> dict[str, Any] | None:
    """A link: speeds in words of sysfs, widths in lanes."""
    return None if value is None else value._asdict()


def states(value: States | None) -> dict[str, Any]:
    """The states of all capabilities; null each when they are not known."""
    if value is None:
        return dict.fromkeys(States._fields)
    return {
        "acs": acs(value.acs),
        "ats": value.ats._asdict(),
        "pri": value.pri and value.pri._asdict(),
        "pasid": value.pasid and value.pasid._asdict(),
        "rebar": {"present": value.rebar.present, "bars": [bar._asdict() for bar in value.rebar.bars]},
        "aer": value.aer._asdict(),
    }


def acs_words(value: Mapping[str, Any] | None) -> str:
    """``SV+RR+CR-UF+``: what is implemented of that which isolation needs, on or off, and what else is on; "?" where it
    is not known, "none" for a capability that is there and implements nothing."""
    if value is None:
        return "?"
    if not value["present"]:
        return "-"
    shown = [bit for bit in value["supported"] if bit in _REQUIRED or bit in value["enabled"]]
    return "".join(f"{bit}{'+' if bit in value['enabled'] else '-'}" for bit in shown) or "none"


def link_words(value: Mapping[str, Any] | None) -> str | None:
    """``x8@8.0GT/s``, and what it could be where that is more: ``x8@8.0GT/s<x16@16.0GT/s``."""
    if value is None:
        return None
    now, best = (_lane_words(value, prefix) for prefix in ("", "max_"))
    return now if best in (None, now) else f"{now or 'down'}<{best}"


def _lane_words(value: Mapping[str, Any], prefix: str) -> str | None:
    speed, width = value[f"{prefix}speed"], value[f"{prefix}width"]
    if speed is None or width is None:
        return None
    return f"x{width}@{speed.removesuffix(' PCIe').replace(' ', '')}"


def unread(functions: tuple[PciFunction, ...]) -> list[str]:
    """Sentences on the functions whose states are not known, and why."""
    asleep = [function.address for function in functions if function.asleep]
    gone = [function.address for function in functions if function.config and is_gone(function.config)]
    cut = [f.address for f in functions if f.address not in asleep + gone and states_of(f.config) is None]
    found = []
    if asleep:
        found.append(f"asleep, and not woken for reading the configuration space: {', '.join(asleep)}")
    if gone:
        found.append(f"silent (gone, in D3cold, or the link is down): {', '.join(gone)}")
    if cut:
        which = cut[0] if len(cut) == 1 else f"{len(cut)} functions"
        found.append(
            f"the configuration space of {which} could not be read whole, as root can: ACS and other capabilities are "
            "not known"
        )
    return found
