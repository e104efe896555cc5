"""Whether there is an IOMMU, in firmware and kernel, and which devices are behind it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vfioctl.model import Evidence, IommuGroup, shown
from vfioctl.policy.diagnosis import may_get_group, why_no_groups
from vfioctl.policy.doctor.findings import CMDLINE, Case, Check, Finding, Severity, listed
from vfioctl.policy.viability import direct_region, is_assignable

_GROUPS = "/sys/kernel/iommu_groups"
#: Of PCI: the IOMMU's own function, which AMD's has, is behind none.
_IOMMU_CLASS = "0806"


def checks(case: Case) -> Iterator[Check]:
    """IOMMU, devices behind it, translation, and what the firmware wants of it."""
    yield _present(case)
    if case.groups:
        yield _covered(case)
        yield _translation(case)
        yield _direct(case)


def _present(case: Case) -> Check:
    platform, kernel = case.platform, case.snapshot.kernel
    tables, units = listed(platform.firmware_tables), listed(kernel.iommu_units)
    detail = f"firmware tables: {tables or 'none'}; kernel: {units or 'no unit'}; {len(case.groups)} groups"
    if case.groups:
        return Check("iommu", None, detail)
    if any(may_get_group(device, kernel) for device in case.snapshot.devices):
        return Check("iommu", None, f"{detail}, for devices get theirs when a driver is probed")
    cause, cure = why_no_groups(platform)
    evidence = (
        *case.said(CMDLINE),
        Evidence("/sys/firmware/acpi/tables", tables or "no DMAR, IVRS, IORT, VIOT or RIMT"),
        Evidence("/sys/class/iommu", units or "empty"),
        Evidence(_GROUPS, "empty" if platform.groups_directory else "absent"),
    )
    works_without = any(group.is_noiommu for group in case.snapshot.groups)
    severity = Severity.WARNING if works_without else Severity.ERROR
    return Check("iommu", None, detail, (Finding("no-iommu", severity, None, cause, evidence, cure),))


def _covered(case: Case) -> Check:
    pci = [device for device in case.snapshot.devices if device.bus == "pci"]
    outside = [
        device
        for device in pci
        if device.group is None
        and is_assignable(device)
        and not may_get_group(device, case.snapshot.kernel)
        and not (device.pci and device.pci.class_.startswith(_IOMMU_CLASS))
    ]
    behind = sum(device.group is not None for device in pci)
    detail = f"{behind} of {len(pci)} PCI devices are in a group"
    if not outside:
        return Check("iommu-devices", None, detail)
    finding = Finding(
        "outside-iommu",
        Severity.INFO,
        None,
        f"no IOMMU is before {listed(shown(device.key) for device in outside)}: they cannot be assigned",
        tuple(Evidence(f"/sys/bus/pci/devices/{d.address}/iommu_group", "absent") for d in outside[:8]),
        "look in the kernel command line for what leaves devices out (intel_iommu=igfx_off and the like)",
    )
    return Check("iommu-devices", None, detail, (finding,))


def _translation(case: Case) -> Check:
    """Only told: VFIO gives a group a domain of its own, whatever the host drivers have (identity is iommu=pt)."""
    types = Counter(group.type or "unknown" for group in case.groups)
    return Check("translation", None, ", ".join(f"{type_}: {n} groups" for type_, n in sorted(types.items())))


def _direct(case: Case) -> Check:
    found = []
    for group in case.groups:
        problem = direct_region(group, case.snapshot.kernel)
        if problem is not None and any(map(is_assignable, group.devices)):
            severity = Severity.ERROR if case.is_wanted(group) else Severity.WARNING
            detail = f"{problem.detail} ({listed(shown(d.key) for d in group.devices)})"
            found.append(
                Finding(problem.code, severity, str(group.id), detail, _regions(group), problem.cure)
            )
    return Check("direct-regions", None, f"in {len(found)} of {len(case.groups)} groups", tuple(found))


def _regions(group: IommuGroup) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"{_GROUPS}/{group.id}/reserved_regions", f"0x{r.start:016x} 0x{r.end:016x} {r.type}")
        for r in group.reserved_regions
        if r.type == "direct"
    )
