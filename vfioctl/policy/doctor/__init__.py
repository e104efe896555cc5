"""Is this host ready for VFIO, and what keeps a device from being assigned? A module for each field. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vfioctl.policy.doctor import (
    boot,
    device,
    drivers,
    firmware,
    interrupts,
    iommu,
    memory,
    modules,
    nodes,
    switches,
)
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity

#: Fields of the host, in the order in which one would set it up.
_FIELDS = (iommu, interrupts, modules, switches, nodes, memory, firmware, boot, drivers, device)
#: What they say of a device or group that was asked for is said of it even when it does not keep it from working.
_OF_SUBJECT = (drivers, device)


def examine(case: Case) -> list[Check]:
    """All checks. When it was asked for certain devices or groups, of the host's findings only those remain that keep
    assignment from working, and of the memory that may be locked what was asked."""
    found = []
    for field in _FIELDS:
        for check in field.checks(case):
            if case.asked and field not in _OF_SUBJECT:
                check = check._replace(findings=tuple(_keeping(case, check.findings)))
            found.append(check)
    return found


def _keeping(case: Case, findings: Iterable[Finding]) -> Iterable[Finding]:
    groups = set(map(str, case.numbers))
    for finding in findings:
        of_another = finding.code == "direct-region" and finding.subject not in groups
        if finding.severity is Severity.ERROR and not of_another:
            yield finding


def findings(checks: Sequence[Check]) -> list[Finding]:
    """All findings, the gravest first."""
    ranks = list(Severity)
    return sorted((f for check in checks for f in check.findings), key=lambda f: ranks.index(f.severity))


def healthy(checks: Sequence[Check]) -> bool:
    """Nothing found but what is only worth knowing."""
    return all(finding.severity is Severity.INFO for check in checks for finding in check.findings)
