"""Switches that take safety away, in use or set for the next load of a module. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vfioctl.model import Evidence
from vfioctl.policy.doctor.findings import CMDLINE, Case, Check, Finding, Severity, listed
from vfioctl.policy.doctor.options import is_on, options

_UNSAFE = "allow_unsafe_interrupts"
_NOIOMMU = "enable_unsafe_noiommu_mode"
#: TAINT_USER of include/linux/panic.h.
_TAINT_USER = 1 << 6


def checks(case: Case) -> Iterator[Check]:
    """Unsafe interrupts, no-IOMMU mode, the ACS override."""
    yield _unsafe_interrupts(case)
    yield _noiommu(case)
    yield _acs_override(case)


def _unsafe_interrupts(case: Case) -> Check:
    risk = "a device may raise any interrupt of the host"
    if case.snapshot.kernel.interrupts_isolated:
        risk += " where they are not isolated; here they are, and it is not needed"
    findings = [
        _switch(case, "unsafe-interrupts", module, _UNSAFE, risk)
        for module in ("vfio_iommu_type1", "iommufd")
    ]
    found = tuple(finding for finding in findings if finding is not None)
    return Check("unsafe-interrupts", None, "allowed" if found else "not allowed", found)


def _noiommu(case: Case) -> Check:
    risk = "VFIO takes devices that nothing keeps from any of the host's memory"
    finding = _switch(case, "noiommu-mode", "vfio", _NOIOMMU, risk)
    found = [finding] if finding is not None else []
    groups = [group for group in case.snapshot.groups if group.is_noiommu]
    for group in groups:
        found.append(
            Finding(
                "noiommu-group",
                Severity.WARNING,
                str(group.id),
                f"group {group.id} is in no-IOMMU mode: {listed(d.address for d in group.devices)} can reach all "
                "of the host's memory",
                (Evidence(f"/dev/vfio/noiommu-{group.id}", "present"),),
                f"vfioctl unbind {group.id}",
            )
        )
    tainted = case.readings.text("/proc/sys/kernel/tainted") or "0"
    if tainted.isdecimal() and int(tainted) & _TAINT_USER:
        found.append(
            Finding(
                "taint-user",
                Severity.INFO,
                None,
                "the kernel is tainted at its user's wish: by no-IOMMU mode, or by another unsafe parameter",
                case.said("/proc/sys/kernel/tainted"),
                "it stays until the next boot; journalctl -k says by what",
            )
        )
    return Check("noiommu", None, "in use" if found else "not in use", tuple(found))


def _switch(case: Case, code: str, module: str, parameter: str, risk: str) -> Finding | None:
    """The finding when a parameter is on, now or at the next load of its module."""
    path = f"/sys/module/{module}/parameters/{parameter}"
    now = case.said(path) if is_on(case.readings.text(path)) else ()
    later = tuple(
        dict.fromkeys(
            option.evidence
            for option in options(case.readings)
            if (option.module, option.name) == (module, parameter) and is_on(option.value)
        )
    )
    if not now and not later:
        return None
    cures = [f"echo N > {path}"] if now else []
    cures += [f"take {parameter} out of {evidence.file}" for evidence in later]
    when = "is on" if now else "will be on when the module is loaded"
    detail = f"{parameter} of {module} {when}: {risk}"
    return Finding(code, Severity.WARNING, module, detail, (*now, *later), "; ".join(cures))


def _acs_override(case: Case) -> Check:
    words = re.findall(r"\bpcie_acs_override=\S*", case.platform.cmdline)
    if not words:
        return Check("acs-override", None, "not on the kernel command line")
    finding = Finding(
        "acs-override",
        Severity.WARNING,
        None,
        "on a kernel with the patch groups are told apart that are not: their devices can reach each other's memory, "
        "and the host's; on any other kernel it has no effect",
        tuple(Evidence(CMDLINE, word) for word in words),
        f"take {' '.join(words)} off the kernel command line, and assign whole groups",
    )
    return Check("acs-override", None, "on the kernel command line", (finding,))
