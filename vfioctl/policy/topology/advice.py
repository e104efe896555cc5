"""Whether the isolation of a group of PCI functions is real, and what would make the group smaller (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vfioctl.policy.pci_config import is_gone
from vfioctl.policy.topology.facts import CONVENTIONAL, DOWNSTREAM_PORT, ROOT_PORT, Facts
from vfioctl.policy.topology.grouping import Placement, Reason, Topology, Unreadable
from vfioctl.policy.viability import release_at_least

_SHOWN = 4


class Note(NamedTuple):
    """Something to be known, or to be done; ``code`` is stable, ``detail`` is for people."""

    code: str
    detail: str


class Case(NamedTuple):
    """The functions ``members`` of a ``group`` (None: of one that would be), and where all functions belong."""

    topology: Topology
    placed: Mapping[str, Placement]
    members: tuple[str, ...]
    group: int | None = None
    cmdline: str = ""
    release: str | None = None

    @property
    def reasons(self) -> list[Reason]:
        """Those of all members."""
        return [reason for address in self.members for reason in self.placed[address].reasons]

    @property
    def groups(self) -> list[int | None]:
        """The predicted groups of the members, each once."""
        return list(dict.fromkeys(self.placed[address].group for address in self.members))

    @property
    def strangers(self) -> list[str]:
        """Functions that the model places with members, although they are none."""
        groups = {group for group in self.groups if group is not None}
        return [a for a, place in self.placed.items() if place.group in groups and a not in self.members]

    @property
    def agrees(self) -> bool | None:
        """Whether the kernel has grouped as the model does; None where that cannot be known."""
        if not self.members or None in self.groups:
            return None
        return len(self.groups) == 1 and not self.strangers


def caveats(case: Case) -> tuple[bool | None, tuple[Note, ...]]:
    """Whether the group really is apart from others (None: unknown), and what there is to say of that."""
    found = [*_unreadable(case), *_override(case), *_differs(case), *_switches(case)]
    codes = {note.code for note in found}
    real: bool | None = None if codes & {"unreadable", "model-differs"} else True
    if codes & {"acs-override", "acs-off-now", "switch-siblings"}:
        real = False
    return real, tuple(dict.fromkeys((*found, *_options(case), *_quirks(case))))


def _unreadable(case: Case) -> Iterator[Note]:
    hidden = dict.fromkeys(r.bridge for r in case.reasons if r.code == "unreadable" and r.bridge is not None)
    functions = {address: case.topology.facts[address].function for address in hidden}
    asleep = [address for address, function in functions.items() if function.asleep]
    gone = [address for address, function in functions.items() if is_gone(function.config)]
    short = [address for address in hidden if address not in (*asleep, *gone)]
    if asleep:
        wake = f"echo on > /sys/bus/pci/devices/{asleep[0]}/power/control"
        yield Note(
            "unreadable",
            f"unknown: {listed(asleep)} sleeps, and reading would wake it; wake it first: {wake}",
        )
    if gone:
        yield Note(
            "unreadable", f"unknown: {listed(gone)} does not answer (gone, in D3cold, or its link is down)"
        )
    if short:
        whole = f"the whole configuration space of {listed(short)}"
        yield Note(
            "unreadable", f"unknown: {whole} would be needed, which only root can read; run this as root"
        )


def _override(case: Case) -> Iterator[Note]:
    word = acs_override(case.cmdline)
    if word is None:
        return
    if case.agrees is False and case.strangers:
        yield Note(
            "acs-override",
            f"{word} is on the kernel command line: this kernel pretends that ports isolate which do not, and "
            f"the group can reach {listed(case.strangers)}",
        )
    elif case.agrees is None:
        yield Note(
            "acs-override-unknown",
            f"{word} is on the kernel command line, and may have made this group smaller",
        )
    else:
        yield Note(
            "acs-override-unused", f"{word} is on the kernel command line, and has no effect on this group"
        )


def _differs(case: Case) -> Iterator[Note]:
    if case.agrees is not False:
        return
    if case.strangers:
        joined = [*case.reasons, *(r for a in case.strangers for r in case.placed[a].reasons)]
        off = [r.bridge for r in joined if r.code == "acs-not-enabled"]
        yield Note(
            "model-differs",
            f"the kernel's grouping differs from the model: it keeps {listed(case.members)} apart from "
            f"{listed(case.strangers)}",
        )
        if off:
            yield Note(
                "acs-off-now",
                f"ACS of {listed(list(dict.fromkeys(off)))} is not on now: if it was when the groups were made, "
                "something has turned it off since",
            )
    if len(case.groups) > 1:
        parts = [[a for a in case.members if case.placed[a].group == group] for group in case.groups]
        yield Note(
            "model-differs",
            "the kernel's grouping differs from the model: it joins "
            + " with ".join(listed(part) for part in parts)
            + ", for which no reason is known here",
        )


def _switches(case: Case) -> Iterator[Note]:
    """Linux up to 7.3 joins what is behind a downstream port without ACS with the port only: its siblings are in other
    slots, and are not looked at, although the switch passes on to them what it gets from that port."""
    topology = case.topology
    seen: set[str] = set()
    for address in case.members:
        facts = topology.facts[address]
        for port in (facts, *topology.above(facts)):
            if port.port_type != DOWNSTREAM_PORT or port.address in seen:
                continue
            seen.add(port.address)
            yield from _siblings(case, port)


def _siblings(case: Case, port: Facts) -> Iterator[Note]:
    topology = case.topology
    behind = {below for below in _below(topology, port) if below in case.members}
    for other in topology.facts.values():
        if (
            other.port_type != DOWNSTREAM_PORT
            or other.function.parent != port.function.parent
            or other is port
        ):
            continue
        reached = [below for below in _below(topology, other) if below not in case.members]
        if not behind or not reached:
            continue
        there = f"{listed(reached)}{_groups(topology, reached)}"
        if topology.isolation(port.address).isolated is False:
            yield Note(
                "switch-siblings",
                f"the switch of {port.address} lets {listed(sorted(behind))} reach {there}",
            )
        if topology.isolation(other.address).isolated is False:
            yield Note(
                "switch-siblings",
                f"the switch of {port.address} lets {there} reach {listed(sorted(behind))}",
            )


def _below(topology: Topology, port: Facts) -> list[str]:
    top = f"{port.function.path}/"
    return [address for address, facts in topology.facts.items() if facts.function.path.startswith(top)]


def _groups(topology: Topology, addresses: list[str]) -> str:
    numbers = sorted(
        {str(g) for a in addresses if (g := topology.facts[a].function.group) is not None}, key=int
    )
    return f" (group {', '.join(numbers)})" if numbers else ""


def _options(case: Case) -> Iterator[Note]:
    off = list(dict.fromkeys(r.bridge for r in case.reasons if r.code == "acs-not-enabled"))
    for option in acs_options(case.cmdline) if off else ():
        yield Note(
            "acs-options",
            f"{option} is on the kernel command line, and may be why ACS of {listed(off)} is off",
        )


def acs_override(cmdline: str) -> str | None:
    """The word of the kernel command line that lets a kernel with a certain patch, which Linux has never taken, pretend
    that ports isolate."""
    return next((word for word in cmdline.split() if word.startswith("pcie_acs_override=")), None)


def acs_options(cmdline: str) -> list[str]:
    """The options of ``pci=`` that take ACS away, as they are to be found on the kernel command line."""
    return [
        f"pci={option}"
        for word in cmdline.split()
        if word.startswith("pci=")
        for option in word[4:].split(",")
        if option.startswith(("disable_acs_redir=", "config_acs="))
    ]


def _quirks(case: Case) -> Iterator[Note]:
    topology = case.topology
    for address in case.members:
        facts = topology.facts[address]
        for each in (facts, *topology.above(facts)):
            verdict = topology.isolation(each.address)
            alone = each is facts and not topology.beside(facts)
            if verdict.code == "quirk" and verdict.isolated and not alone:
                yield Note("quirk", f"{each.address} has no ACS to prove it, but {verdict.detail}")


def remedies(case: Case) -> tuple[Note, ...]:
    """What would take members apart, or bring them out of reach of others; none for a single device and its ports."""
    topology = case.topology
    devices = [a for a in case.members if not topology.facts[a].function.ids.class_.startswith("06")]
    codes = {reason.code for reason in case.reasons}
    leaky = any(note.code == "switch-siblings" for note in _switches(case))
    if len(devices) < 2 and not leaky:
        return ()
    found: list[Note] = []
    for reason in case.reasons:
        if reason.code == "acs-not-enabled" and reason.bridge is not None:
            found += _turn_on(case, reason)
    if "vmd" in codes:
        found.append(
            Note(
                "vmd-off", "turn VMD (Intel RST, RAID) off in the firmware setup: its devices get groups then"
            )
        )
    if codes & {"no-acs", "bridge-alias", "conventional", "bridge", "quirk"} or leaky:
        found.append(_another_slot(case, devices))
    if "no-acs" in codes:
        found.append(
            Note(
                "firmware",
                "look for ACS and ARI in the firmware setup, and for newer firmware: some hides ACS of ports",
            )
        )
    found += together(case.group, len(devices))
    return tuple(dict.fromkeys(found))


def together(group: int | None, count: int) -> tuple[Note, ...]:
    """What can always be done with the devices of a group."""
    if count < 2:
        return ()
    how = "" if group is None else f": vfioctl bind {group}"
    return (Note("together", f"assign the {count} devices of the group together, to one user{how}"),)


def _turn_on(case: Case, reason: Reason) -> Iterator[Note]:
    for option in acs_options(case.cmdline):
        yield Note("kernel-option", f"take {option} off the kernel command line, and boot again")
    missing = reason.verdict.missing if reason.verdict is not None else 0
    if missing and release_at_least(case.release, 6, 11):
        bits = "".join("1" if missing >> bit & 1 else "x" for bit in reversed(range(missing.bit_length())))
        yield Note(
            "config-acs",
            f"boot with pci=config_acs={bits}@{reason.bridge} on the kernel command line, which turns ACS on there",
        )


def _another_slot(case: Case, devices: Sequence[str]) -> Note:
    topology = case.topology
    if devices and all(topology.facts[a].port_type == CONVENTIONAL for a in devices):
        return Note(
            "another-slot",
            "conventional PCI cards behind one bridge have one identity: each would need a slot behind a bridge of its"
            " own, or a card for PCI Express in its place",
        )
    used = {each.address for a in case.members for each in topology.above(topology.facts[a])}
    ports = [a for a in topology.facts if a not in used and a not in case.members and _isolates(topology, a)]
    if not ports:
        return Note("another-slot", "no other root port of this host isolates: a slot of another host would")
    free = [a for a in ports if not _below(topology, topology.facts[a])]
    words = [f"{a} (empty)" if a in free else a for a in (*free, *(a for a in ports if a not in free))]
    return Note("another-slot", f"move a card to a slot of a root port that isolates: {listed(words)}")


def _isolates(topology: Topology, address: str) -> bool:
    facts = topology.facts[address]
    if facts.port_type != ROOT_PORT:
        return False
    try:
        return topology.leak(facts) is None
    except Unreadable:
        return False


def listed(words: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    more = len(words) - _SHOWN
    return ", ".join(str(word) for word in words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
