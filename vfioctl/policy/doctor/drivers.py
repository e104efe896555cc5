"""Host drivers that keep groups from being assigned though nobody thinks of them. Pure.

That an ordinary device has its ordinary driver is no finding: a bind takes it. Of a bridge nobody thinks that it has
one, and no bind of a device behind it takes it: shpchp has conventional bridges on many kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfioctl.model import Device, Evidence, IommuGroup, shown
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity
from vfioctl.policy.viability import Member, is_assignable, is_vfio_bound, judge


def checks(case: Case) -> Iterator[Check]:
    """The members that block, group by group."""
    found: list[Finding] = []
    groups = [group for group in case.snapshot.groups if not case.asked or group.id in case.numbers]
    for group in groups:
        found += _in_group(case, group)
    yield Check("host-drivers", None, f"{len(groups)} groups looked at", tuple(found))


def _in_group(case: Case, group: IommuGroup) -> Iterator[Finding]:
    if not any(map(is_assignable, group.devices)):
        return
    bound = any(map(is_vfio_bound, group.devices))
    whole = any(isinstance(subject, IommuGroup) and subject.id == group.id for subject in case.asked)
    devices = {s.key for s in case.asked if isinstance(s, Device)}
    for member in judge(group, case.snapshot.kernel).members:
        if not member.blocking or member.device.key in devices:
            continue
        if member.device.is_bridge:
            if case.is_wanted(group):
                yield _finding("bridge-driver", Severity.ERROR, member, group)
            elif not _has_ordinary_driver(member.device):
                yield _finding("bridge-driver", Severity.WARNING, member, group)
        elif bound or (devices and not whole):
            yield _finding("host-driver", Severity.ERROR, member, group)


def _has_ordinary_driver(bridge: Device) -> bool:
    """A CardBus bridge needs its driver (class 0607), and has it on every host that has one."""
    return bridge.pci is not None and bridge.pci.class_.startswith("0607")


def _finding(code: str, severity: Severity, member: Member, group: IommuGroup) -> Finding:
    device = member.device
    return Finding(
        code,
        severity,
        shown(device.key),
        f"group {group.id} is not viable while {device.driver} has {shown(device.key)}: {member.detail}",
        (Evidence(f"/sys/bus/{device.bus}/devices/{device.address}/driver", device.driver or ""),),
        member.cure,
    )
