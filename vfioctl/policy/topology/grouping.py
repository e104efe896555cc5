"""The groups that Linux makes of PCI functions: drivers/iommu/iommu.c, pci_device_group, Linux 5.10 to 7.3.

Each function is asked, in the order in which the kernel finds them, which of those before it its DMA cannot be told
from, or whom it can reach past the IOMMU. What cannot be known is left open, never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from vfioctl.model import PciFunction
from vfioctl.policy.topology import quirks
from vfioctl.policy.topology.facts import CONVENTIONAL, PCI_TO_PCIE, PCIE_TO_PCI, Facts, facts_of
from vfioctl.policy.topology.isolation import Host, Isolation, isolation_of


class Reason(NamedTuple):
    """Why a function is where it is. ``bridge``: the bridge, or the other function, that it is there with or for.

    ``code``: ``bridge-alias``, ``no-acs``, ``acs-not-enabled``, ``conventional``, ``bridge``, ``quirk``,
    ``multifunction``, ``dma-alias-quirk``, ``vmd``, ``separate``, ``unreadable``.
    """

    address: str
    code: str
    bridge: str | None
    detail: str
    verdict: Isolation | None = None


class Placement(NamedTuple):
    """``group`` numbers the predicted groups from 0 on; None where it cannot be known."""

    group: int | None
    reasons: tuple[Reason, ...]


class Topology:
    """Functions, what is known of each, and who is above and beside whom."""

    def __init__(self, functions: Iterable[PciFunction], host: Host) -> None:
        self.host = host
        self.facts = {function.address: facts_of(function) for function in functions}
        self._buses: dict[str, list[Facts]] = {}
        self._slots: dict[str, list[Facts]] = {}
        for each in self.facts.values():
            self._buses.setdefault(each.function.bus, []).append(each)
            self._slots.setdefault(_slot(each), []).append(each)
        self._isolations: dict[str, Isolation] = {}

    def isolation(self, address: str) -> Isolation:
        """Whether a function isolates, and by what."""
        if address not in self._isolations:
            self._isolations[address] = isolation_of(self.facts[address], self.host)
        return self._isolations[address]

    def above(self, facts: Facts) -> Iterator[Facts]:
        """The bridges between a function and the root bus, the nearest first."""
        seen = {facts.address}
        while (parent := facts.function.parent) in self.facts and parent not in seen:
            assert parent is not None
            seen.add(parent)
            facts = self.facts[parent]
            yield facts

    def leak(self, port: Facts) -> Facts | None:
        """The first of a bridge and those above it that does not isolate; None when all do. Raises Unreadable."""
        open_question = None
        for each in (port, *self.above(port)):
            isolated = self.isolation(each.address).isolated
            if isolated is False:
                return each
            if isolated is None and open_question is None:
                open_question = each
        if open_question is not None:
            raise Unreadable(open_question.address)
        return None

    def beside(self, facts: Facts) -> list[Facts]:
        """The other functions of the slot."""
        return [other for other in self._slots[_slot(facts)] if other is not facts]

    def aliases(self, facts: Facts) -> list[Facts]:
        """The other functions of the bus in whose name it does DMA, or that do in its name."""
        return [
            other
            for other in self._aliasing.get(facts.function.bus, ())
            if other is not facts and (other.devfn in facts.aliases or facts.devfn in other.aliases)
        ]

    @cached_property
    def _aliasing(self) -> Mapping[str, list[Facts]]:
        """The functions of those buses where one has aliases."""
        return {bus: found for bus, found in self._buses.items() if any(each.aliases for each in found)}


def _slot(facts: Facts) -> str:
    """The address without the function's number."""
    return facts.address.rpartition(".")[0]


class Unreadable(Exception):
    """The configuration space of the function ``address`` would be needed."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


def predict(topology: Topology, taken: Collection[str]) -> dict[str, Placement]:
    """Where the functions ``taken`` (those that the IOMMU serves) belong. The others are in no group, but their
    registers count."""
    model = _Model(topology)
    order = sorted(taken, key=lambda address: _order(topology.facts[address].function))
    for address in order:
        model.place(topology.facts[address])
    return model.placed


def _order(function: PciFunction) -> tuple[object, ...]:
    """A bridge comes before what is behind it, a PF before its VFs, and function 0 before the others."""
    domain = int(function.address.partition(":")[0], 16)
    return (function.physfn is not None, function.path.count("/"), domain, function.address)


class _Model:
    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.placed: dict[str, Placement] = {}
        self._groups = 0

    def place(self, facts: Facts) -> None:
        reasons: list[Reason] = []
        try:
            partner = self._partner(facts, reasons)
            group = self._new() if partner is None else self._group_of(partner)
        except Unreadable as unreadable:
            group = None
            reasons.append(
                Reason(
                    facts.address,
                    "unreadable",
                    unreadable.address,
                    f"the configuration space of {unreadable.address} would be needed, and cannot be read",
                )
            )
        self.placed[facts.address] = Placement(group, tuple(reasons))

    def _new(self) -> int:
        self._groups += 1
        return self._groups - 1

    def _group_of(self, address: str) -> int:
        group = self.placed[address].group
        if group is None:
            raise Unreadable(
                next(r.bridge for r in self.placed[address].reasons if r.code == "unreadable") or ""
            )
        return group

    def _partner(self, facts: Facts, reasons: list[Reason]) -> str | None:
        """The function whose group it joins; None for a group of its own."""
        head = facts
        owner = facts.function.domain_owner
        if owner in self.topology.facts:
            assert owner is not None
            reasons.append(
                Reason(
                    facts.address, "vmd", owner, f"{owner} made its domain, and does its DMA in its own name"
                )
            )
            if owner in self.placed:
                return owner
            head = self.topology.facts[owner]
        for bridge, how in self._masks(head):
            reasons.append(Reason(facts.address, "bridge-alias", bridge.address, how))
            head = bridge
            if bridge.address in self.placed:
                return bridge.address
        for bridge in self.topology.above(head):
            leak = self.topology.leak(bridge)
            if leak is None:
                break
            reasons.append(self._path_reason(facts, leak))
            head = bridge
            if bridge.address in self.placed:
                return bridge.address
        seen: set[int] = set()
        partner = self._alias(head, seen)
        if partner is not None:
            detail = f"{head.address} and {partner} do DMA in each other's name, as the kernel knows of their model"
            reasons.append(Reason(facts.address, "dma-alias-quirk", partner, detail))
            return partner
        partner = self._neighbour(head, seen)
        if partner is not None:
            verdict = self.topology.isolation(head.address)
            detail = f"{head.address} is in the slot of {partner}, and nothing keeps the two apart: {verdict.detail}"
            reasons.append(Reason(facts.address, "multifunction", partner, detail, verdict))
            return partner
        reasons.append(Reason(facts.address, "separate", None, self._why_separate(facts, head)))
        return None

    def _masks(self, head: Facts) -> Iterator[tuple[Facts, str]]:
        """The bridges that do DMA for a function in another name, with how they do it: pci_for_each_dma_alias in
        drivers/pci/search.c. Raises Unreadable."""
        for bridge in self.topology.above(head):
            if bridge.ids in quirks.TRANSLATION_ROOTS:
                return
            if bridge.port_type is None:
                raise Unreadable(bridge.address)
            if bridge.port_type == PCIE_TO_PCI and bridge.ids not in quirks.NO_ALIAS_BRIDGES:
                yield (
                    bridge,
                    f"{bridge.address}, a bridge to conventional PCI, names no device but its whole bus",
                )
            elif bridge.port_type in (CONVENTIONAL, PCI_TO_PCIE):
                yield bridge, f"{bridge.address}, a conventional bridge, may do its DMA in its own name"

    def _path_reason(self, facts: Facts, leak: Facts) -> Reason:
        verdict = self.topology.isolation(leak.address)
        detail = f"what is behind {leak.address} can talk past the IOMMU: it is {verdict.detail}"
        if verdict.code == "quirk":
            detail = f"what is behind {leak.address} can talk past the IOMMU: {verdict.detail}"
        return Reason(facts.address, verdict.code, leak.address, detail, verdict)

    def _alias(self, facts: Facts, seen: set[int]) -> str | None:
        """One that is placed among a function, its aliases, and theirs (get_pci_alias_group)."""
        if facts.devfn in seen:
            return None
        seen.add(facts.devfn)
        if facts.address in self.placed:
            return facts.address
        for other in self.topology.aliases(facts):
            found = self._alias(other, seen) or self._neighbour(other, seen)
            if found is not None:
                return found
        return None

    def _neighbour(self, facts: Facts, seen: set[int]) -> str | None:
        """One that is placed among the functions of the slot that are not isolated from it, and their aliases
        (get_pci_function_alias_group)."""
        others = self.topology.beside(facts)
        isolated = self.topology.isolation(facts.address).isolated
        if not others or facts.multifunction is False or isolated:
            return None
        if facts.multifunction is None or isolated is None:
            raise Unreadable(facts.address)
        for other in others:
            if not self._isolated(other) and (found := self._alias(other, seen)) is not None:
                return found
        return None

    def _isolated(self, facts: Facts) -> bool:
        isolated = self.topology.isolation(facts.address).isolated
        if isolated is None:
            raise Unreadable(facts.address)
        return isolated

    def _why_separate(self, facts: Facts, head: Facts) -> str:
        ports = [each.address for each in self.topology.above(head)]
        if ports:
            place = f"all its traffic goes through {' and '.join(ports)} up to the IOMMU"
        else:
            place = "it is on a root bus" if head is facts else f"{head.address} is on a root bus"
        others = self.topology.beside(head)
        verdict = self.topology.isolation(head.address)
        if not others:
            return f"{place}, and it is alone in its slot"
        if head.multifunction is False:
            return f"{place}, and Linux takes it for the only function of its slot"
        if verdict.isolated:
            return f"{place}, and no other function of its slot reaches it: {verdict.detail}"
        if all(self.topology.isolation(other.address).isolated for other in others):
            return f"{place}, and the other functions of its slot are isolated"
        return f"{place}, and it is the first of the functions of its slot that nothing keeps apart"
