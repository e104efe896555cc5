"""Whether the interrupts of devices are isolated from each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vfioctl.model import Evidence
from vfioctl.policy.doctor.findings import CMDLINE, Case, Check, Finding, Severity
from vfioctl.policy.viability import interrupts_not_isolated

_OFF = frozenset({"intremap=off", "nointremap", "noapic", "iommu=off"})


def checks(case: Case) -> Iterator[Check]:
    """Interrupt remapping (x86), an interrupt translation service (arm64)."""
    kernel = case.snapshot.kernel
    if not case.groups:
        yield Check("interrupts", None, "without an IOMMU nothing isolates them", known=False)
        return
    if kernel.interrupts_isolated is None:
        detail = f"whether they are isolated cannot be told from /proc/interrupts on {kernel.machine}"
        yield Check("interrupts", None, detail, known=False)
        return
    problem = interrupts_not_isolated(kernel)
    if problem is None:
        yield Check("interrupts", None, "isolated")
    elif not problem.fatal:
        yield Check("interrupts", None, problem.detail)
    else:
        words = [word for word in case.platform.cmdline.split() if word in _OFF]
        chips = "ITS" if kernel.machine == "aarch64" else "IR-"
        evidence = (Evidence("/proc/interrupts", f"no chip's name begins with {chips}"), *case.said(CMDLINE))
        cure = f"take {' '.join(words)} off the kernel command line; or: " if words else ""
        finding = Finding(
            problem.code, Severity.ERROR, None, problem.detail, evidence, f"{cure}{problem.cure}"
        )
        yield Check("interrupts", None, "not isolated", (finding,))
