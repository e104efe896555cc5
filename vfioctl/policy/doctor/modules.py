"""Whether the modules of VFIO are there, and may be loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vfioctl.model import Evidence
from vfioctl.policy.buses import BUS_DRIVERS
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity
from vfioctl.policy.doctor.options import canonical, rules, unread

#: Of these one has to be there, by the machine's name; iommufd takes the place of type1 where it serves containers.
_BACKENDS = {True: ("vfio_iommu_spapr_tce",), False: ("vfio_iommu_type1", "iommufd")}
#: What an install line runs instead of loading the module.
_REFUSALS = ("false", "true", "nologin", ":")


def checks(case: Case) -> Iterator[Check]:
    """VFIO itself, the driver of each bus that is in question, a backend for DMA; and rules against loading them."""
    buses = {device.bus for device in case.candidates} if case.asked else {"pci"}
    drivers = sorted(canonical(BUS_DRIVERS[bus]) for bus in buses if bus in BUS_DRIVERS and bus != "mdev")
    backends = _BACKENDS[(case.platform.machine or "").startswith("ppc")]
    needs = [("vfio",), *((name,) for name in drivers), backends]
    states = case.readings.modules
    seen = ", ".join(f"{name} {states.get(name) or '?'}" for need in needs for name in need)
    found = tuple(_missing(case, need) for need in needs if _are(case, need, "missing"))
    known = bool(found) or not any(_are(case, need, None) for need in needs)
    detail = seen if known else f"{seen}: the lists of the kernel's modules cannot be read"
    yield Check("modules", None, detail, found, known)
    yield _rules(case, [name for need in needs for name in need])


def _are(case: Case, need: Sequence[str], state: str | None) -> bool:
    """Whether all that would do are in this state."""
    return all(case.readings.modules.get(name) == state for name in need)


def _missing(case: Case, need: Sequence[str]) -> Finding:
    release = case.snapshot.kernel.release
    names = " or ".join(need)
    path = f"/boot/config-{release}"
    options = [f"CONFIG_{name.upper()}" for name in need if name != "vfio"]
    lines = [
        line
        for line in (case.readings.text(path) or "").split("\n")
        if any(line in (f"# {option} is not set", f"{option}=m", f"{option}=y") for option in options)
    ]
    off = bool(lines) and all(line.startswith("#") for line in lines)
    cure = (
        "boot a kernel that is built with it"
        if off
        else f"install the package with the modules of {release} (Ubuntu: linux-modules-extra-{release}); after an "
        "upgrade of the kernel, boot into the new one"
    )
    evidence = [Evidence(f"/lib/modules/{release}/modules.dep", f"has no {names}")]
    return Finding(
        "module-missing",
        Severity.ERROR,
        need[0],
        f"this kernel has no module {names}",
        (*evidence, *(Evidence(path, line) for line in lines)),
        cure,
    )


def _rules(case: Case, needed: Sequence[str]) -> Check:
    found = []
    for rule in rules(case.readings):
        if rule.module not in needed or case.readings.modules.get(rule.module) == "built-in":
            continue
        if rule.command == "module_blacklist" or (
            rule.command == "install" and rule.words[:1] and rule.words[0].rpartition("/")[2] in _REFUSALS
        ):
            loaded = case.readings.modules.get(rule.module) == "loaded"
            found.append(
                Finding(
                    "module-forbidden",
                    Severity.WARNING if loaded else Severity.ERROR,
                    rule.module,
                    f"{rule.module} cannot be loaded" + (" again; it is loaded now" if loaded else ""),
                    (rule.evidence,),
                    f"take it out of {rule.evidence.file}",
                )
            )
        elif rule.command == "blacklist":
            found.append(
                Finding(
                    "module-blacklisted",
                    Severity.INFO,
                    rule.module,
                    f"{rule.module} is not loaded for an alias; by its name it is, as vfioctl bind does",
                    (rule.evidence,),
                )
            )
    why = unread(case.readings)
    return Check("module-rules", None, why or f"{len(found)} against them", tuple(found), why is None)
