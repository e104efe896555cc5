"""Lockdown and Secure Boot: what they mean for VFIO. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vfioctl.model import Unread
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity

_LOCKDOWN = "/sys/kernel/security/lockdown"
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_REASONS = {
    _LOCKDOWN: "securityfs is not mounted here, or the kernel has no lockdown",
    _SECURE_BOOT: "not booted by EFI, or its variables are not mounted",
}


def checks(case: Case) -> Iterator[Check]:
    """Neither keeps VFIO from working: they are told for what surprises with them."""
    text = case.readings.text(_LOCKDOWN)
    if text is None:
        yield _unread(case, "lockdown", _LOCKDOWN)
    else:
        level = re.search(r"\[(\w+)\]", text)
        active = level is not None and level[1] != "none"
        finding = Finding(
            "lockdown",
            Severity.INFO,
            None,
            "VFIO works under it; but writes to configuration space and BARs through sysfs are refused, and modules "
            "without a signature (vGPU drivers, patched VFIO) do not load",
            case.said(_LOCKDOWN),
        )
        yield Check("lockdown", None, text, (finding,) if active else ())
    variable = case.readings.text(_SECURE_BOOT)
    if variable is None:
        yield _unread(case, "secure-boot", _SECURE_BOOT)
    else:
        # Four bytes of attributes, then the value (Linux, Documentation/filesystems/efivarfs.rst).
        yield Check("secure-boot", None, "on" if variable[4:5] == "\x01" else "off")


def _unread(case: Case, name: str, path: str) -> Check:
    why = case.readings.why(path)
    reason = (
        _REASONS[path]
        if why is Unread.ABSENT
        else "root may read it"
        if why is Unread.FORBIDDEN
        else "failed"
    )
    return Check(name, None, f"{path} is {why.value if why else 'empty'}: {reason}", known=False)
