"""Why the devices of a group are in one, whether that isolates, and what would separate them (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import NamedTuple

from vfioctl.model import Device, IommuGroup, IommuUnit, PciFunction, Platform, Snapshot, shown
from vfioctl.policy.diagnosis import may_get_group, why_no_group, why_no_groups
from vfioctl.policy.topology import rules
from vfioctl.policy.topology.advice import Case, Note, caveats, listed, remedies, together
from vfioctl.policy.topology.grouping import Placement, Reason, Topology, predict
from vfioctl.policy.topology.isolation import Host


class Explanation(NamedTuple):
    """``rule``: see vfioctl.policy.topology.rules. ``devices``: of the group that is, or of the one that would be.
    ``real``: whether the group is apart from others; ``agrees``: whether the rule gives the kernel's group; None where
    that cannot be known."""

    group: int | None
    rule: str
    devices: tuple[str, ...]
    reasons: tuple[Reason, ...]
    real: bool | None
    caveats: tuple[Note, ...]
    remedies: tuple[Note, ...]
    agrees: bool | None


def representative(subject: IommuGroup | Device) -> Device | None:
    """The device whose IOMMU decides by which rule a subject is grouped; None for a group that is empty."""
    if isinstance(subject, Device):
        return subject
    return next(iter(subject.devices), None)


def is_on(snapshot: Snapshot, functions: Collection[PciFunction]) -> bool:
    """Whether an IOMMU is on, so that the kernel has asked for ACS at boot (pci_request_acs)."""
    return bool(snapshot.kernel.iommu_units) or bool(_served(snapshot, functions))


def topology_of(snapshot: Snapshot, functions: Collection[PciFunction], platform: Platform) -> Topology:
    """The functions of a host, with which of them isolate."""
    host = Host(requested=is_on(snapshot, functions), amd_vi="IVRS" in platform.firmware_tables)
    return Topology(functions, host)


def _served(snapshot: Snapshot, functions: Collection[PciFunction]) -> frozenset[str]:
    fake = {group.id for group in snapshot.groups if rules.is_fake(group)}
    return frozenset(f.address for f in functions if f.group is not None and f.group not in fake)


class Explainer:
    """Explains the groups of one host."""

    def __init__(self, snapshot: Snapshot, functions: Collection[PciFunction], platform: Platform) -> None:
        self._snapshot = snapshot
        self._platform = platform
        self._is_on = is_on(snapshot, functions)
        self._topology = topology_of(snapshot, functions, platform)
        self._taken = _served(snapshot, functions) if self._is_on else frozenset(self._topology.facts)

    def explain(self, subject: IommuGroup | Device, unit: IommuUnit | None) -> Explanation:
        """``unit``: the IOMMU of the subject's representative."""
        group = subject if isinstance(subject, IommuGroup) else self._group_of(subject)
        device = representative(subject)
        if device is None:
            return Explanation(group and group.id, rules.PCI, (), (), None, (), (), None)
        if group is None:
            return self._without_group(device, unit)
        rule = rules.rule_of(device, group, unit, self._snapshot.kernel.machine)
        if rule != rules.PCI:
            return self._by_rule(group, rule)
        members = tuple(
            d.address for d in group.devices if d.bus == "pci" and d.address in self._topology.facts
        )
        return self._by_topology(group, self._case(members))

    def _group_of(self, device: Device) -> IommuGroup | None:
        return next((group for group in self._snapshot.groups if group.id == device.group), None)

    @cached_property
    def _placed(self) -> Mapping[str, Placement]:
        return predict(self._topology, self._taken)

    def _case(self, members: tuple[str, ...]) -> Case:
        """``members`` of a group that is, or one device that has none."""
        late = not self._taken.issuperset(members)
        placed = predict(self._topology, self._taken | set(members)) if late else self._placed
        group = self._topology.facts[members[0]].function.group if members else None
        return Case(
            self._topology, placed, members, group, self._platform.cmdline, self._snapshot.kernel.release
        )

    def _by_topology(self, group: IommuGroup, case: Case) -> Explanation:
        real, doubts = caveats(case)
        return Explanation(
            group.id,
            rules.PCI,
            tuple(shown(device.key) for device in group.devices),
            _ordered(case),
            real,
            doubts,
            remedies(case),
            case.agrees,
        )

    def _by_rule(self, group: IommuGroup, rule: str) -> Explanation:
        detail = rules.detail_of(rule, group)
        names = tuple(shown(device.key) for device in group.devices)
        real: bool | None = {"no-iommu": False, "mediated": None, "unknown": None}.get(rule, True)
        agrees = rules.agrees(rule, group)
        found = [] if real else [Note(rule, detail)]
        if agrees is False:
            real = None if real else real
            words = (
                f"the kernel's grouping differs from the model: {detail}; and in this one is {listed(names)}"
            )
            found.append(Note("model-differs", words))
        reasons = tuple(Reason(name, rule, None, detail) for name in names)
        return Explanation(
            group.id, rule, names, reasons, real, tuple(found), together(group.id, len(names)), agrees
        )

    def _without_group(self, device: Device, unit: IommuUnit | None) -> Explanation:
        """With no IOMMU on: the group that would be; with one: that which the device gets, or none."""
        kernel = self._snapshot.kernel
        cause, cure = why_no_group(device, kernel) if self._is_on else why_no_groups(self._platform)
        later = not self._is_on or may_get_group(device, kernel)
        rule = rules.rule_of(device, None, unit, kernel.machine)
        none = Note("no-iommu-group", cause)
        if rule != rules.PCI or device.address not in self._topology.facts or not later:
            reason = Reason(shown(device.key), none.code, None, f"it is in no IOMMU group: {cause}")
            names = (shown(device.key),)
            return Explanation(None, rule, names, (reason,), False, (none,), (Note("iommu", cure),), None)
        alone = self._case((device.address,))
        place = alone.placed[device.address].group
        members = tuple(a for a, other in alone.placed.items() if other.group == place and place is not None)
        case = alone._replace(members=members or alone.members)
        real, doubts = caveats(case)
        return Explanation(
            None,
            rules.PCI,
            case.members,
            _ordered(case),
            real if self._is_on else False,
            (none, *doubts),
            (Note("bind" if self._is_on else "iommu", cure), *remedies(case)),
            None,
        )


def _ordered(case: Case) -> tuple[Reason, ...]:
    """The reasons member by member, each once."""
    return tuple(
        dict.fromkeys(reason for address in sorted(case.members) for reason in case.placed[address].reasons)
    )
