"""What keeps one device from being assigned, or makes it surprise. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vfioctl.model import Device, Evidence, IommuGroup, Use, shown
from vfioctl.policy.buses import BUS_DRIVERS
from vfioctl.policy.diagnosis import may_get_group, why_no_group
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity, listed
from vfioctl.policy.doctor.options import is_set
from vfioctl.policy.guards import ALLOWABLE_GUARDS, GUARDS, Kind
from vfioctl.policy.impact import impacts
from vfioctl.policy.variants import known_driver
from vfioctl.policy.viability import is_assignable, is_vfio_bound

#: Devices that vfio-pci refuses (drivers/vfio/pci/vfio_pci.c, vfio_pci_dev_in_denylist): QAT, DSA, IAX.
DENIED = frozenset(
    f"8086:{device}" for device in ("0435", "0443", "19e2", "19e3", "37c8", "37c9", "0b25", "0cfe")
)
_DENYLIST = "/sys/module/vfio_pci/parameters/disable_denylist"
#: Uses that are in the way of whoever has the device now.
_STAYS = frozenset({"firmware-framebuffer", "console"})


def checks(case: Case) -> Iterator[Check]:
    """Of every candidate: group, driver, use by the host, power and reset."""
    goals = {d.key: d.driver if is_vfio_bound(d) else "vfio-pci" for d in case.candidates}
    concerned = {i.device.key: i.uses for i in impacts(case.snapshot, goals, case.uses)}
    asked = {subject.key for subject in case.asked if isinstance(subject, Device)}
    for subject in case.asked:
        if isinstance(subject, IommuGroup) and not any(map(is_assignable, subject.devices)):
            yield _nothing(subject)
    for device in case.candidates:
        if device.key in asked:
            yield _group(case, device)
            yield _driver(case, device)
        yield _uses(case, device, concerned.get(device.key, ()))
        if device.bus == "pci" and case.asked:
            yield _power(case, device)
            yield _reset(case, device)


def _nothing(group: IommuGroup) -> Check:
    members = listed(shown(device.key) for device in group.devices)
    finding = Finding(
        "nothing-to-assign",
        Severity.ERROR,
        str(group.id),
        "all its members are bridges, or there are none",
        (Evidence(f"/sys/kernel/iommu_groups/{group.id}/devices", members or "empty"),),
        "vfioctl list-groups --devices shows which groups have others",
    )
    return Check("group", str(group.id), members, (finding,))


def _group(case: Case, device: Device) -> Check:
    name, kernel = shown(device.key), case.snapshot.kernel
    if device.group is not None:
        return Check("group", name, f"in group {device.group}")
    if may_get_group(device, kernel):
        return Check("group", name, "in none yet: it gets one when a driver is probed")
    if not case.groups or device.bus in ("css", "ap"):
        # What keeps the host from having any is said already.
        return Check("group", name, "in none", known=False)
    cause, cure = why_no_group(device, kernel)
    evidence = Evidence(f"/sys/bus/{device.bus}/devices/{device.address}/iommu_group", "absent")
    finding = Finding(
        "no-iommu-group", Severity.ERROR, name, f"it is in no IOMMU group: {cause}", (evidence,), cure
    )
    return Check("group", name, "in none", (finding,))


def _driver(case: Case, device: Device) -> Check:
    name = shown(device.key)
    ids = f"{device.pci.vendor}:{device.pci.device}" if device.pci else ""
    found = []
    if device.bus not in BUS_DRIVERS:
        detail = f"there is no VFIO driver for the bus {device.bus}"
        evidence = Evidence(f"/sys/bus/{device.bus}/devices/{device.address}/subsystem", device.bus)
        cure = "assign the controller that it is behind"
        found.append(Finding("no-vfio-driver", Severity.ERROR, name, detail, (evidence,), cure))
    elif (
        ids in DENIED
        and not is_set(case.readings, "vfio_pci", "disable_denylist")
        and not is_vfio_bound(device)
    ):
        found.append(
            Finding(
                "denylisted",
                Severity.ERROR,
                name,
                f"vfio-pci refuses {ids}: its users could bring the host down",
                (
                    Evidence(f"/sys/bus/pci/devices/{device.address}/modalias", device.modalias or ""),
                    *case.said(_DENYLIST),
                ),
                "assign its virtual functions; or, to accept the risk: options vfio-pci disable_denylist=1 in "
                "/etc/modprobe.d, and load vfio-pci again",
            )
        )
    module = case.variants.get(device.key)
    if module is not None and device.driver != known_driver(module):
        found.append(
            Finding(
                "variant-driver",
                Severity.INFO,
                name,
                f"there is a VFIO driver made for it, in the module {module}, with which it can migrate, or do more",
                (Evidence(f"/lib/modules/{case.snapshot.kernel.release}/modules.alias", module),),
                f"vfioctl bind {name} --driver auto",
            )
        )
    return Check("vfio-driver", name, f"on {device.driver or 'no driver'} now", tuple(found))


def _uses(case: Case, device: Device, concerned: tuple[Use, ...]) -> Check:
    name = shown(device.key)
    if is_vfio_bound(device):
        concerned = tuple(use for use in case.uses.get(device.key, ()) if use.guard in _STAYS)
    found = tuple(_use(name, device, use) for use in concerned if use.guard not in ("siblings", "unseen"))
    unseen = [use.evidence for use in concerned if use.guard == "unseen"]
    detail = f"{len(found)} uses by the host" + (f"; {listed(unseen)}" if unseen else "")
    return Check("host-uses", name, detail, found, known=not unseen)


def _use(name: str, device: Device, use: Use) -> Finding:
    guard = GUARDS[use.guard]
    if guard.kind is Kind.NEVER or is_vfio_bound(device):
        severity = Severity.ERROR if use.refuses else Severity.WARNING
    else:
        severity = Severity.WARNING if use.refuses else Severity.INFO
    cure = guard.cure
    if use.refuses and use.guard in ALLOWABLE_GUARDS and not is_vfio_bound(device):
        allow = f"to take it from the host all the same: vfioctl bind {name} --allow {use.guard}"
        cure = f"{cure}; {allow}" if cure else allow
    elif use.guard in _STAYS:
        cure = (
            "take it from the firmware's frame buffer (unbind simple-framebuffer.0 or efi-framebuffer.0 from its "
            "driver below /sys/bus/platform/drivers), or let another card be the host's display"
        )
    evidence = Evidence(f"/sys/bus/{device.bus}/devices/{device.address}", use.evidence)
    return Finding(use.guard, severity, name, use.evidence, (evidence,), cure)


def _power(case: Case, device: Device) -> Check:
    name, home = shown(device.key), f"/sys/bus/pci/devices/{device.address}"
    state, cold = f"{home}/power_state", f"{home}/d3cold_allowed"
    text = case.readings.text(state)
    if text != "D3cold":
        return Check("power", name, text or "not told", known=text is not None)
    finding = Finding(
        "d3cold",
        Severity.WARNING,
        name,
        "it has no power (D3cold), and some devices do not come back from there for VFIO",
        case.said(state, cold),
        f"echo 0 > {cold}; echo on > {home}/power/control",
    )
    return Check("power", name, text, (finding,))


def _reset(case: Case, device: Device) -> Check:
    name, home = shown(device.key), f"/sys/bus/pci/devices/{device.address}"
    listing, switch = f"{home}/reset_method", f"{home}/reset"
    listed_methods = case.readings.text(listing)
    methods = (listed_methods or "").split()
    there = case.readings.text(switch) is not None
    off = there and listed_methods == ""
    if off or not there:
        finding = Finding(
            "no-reset",
            Severity.WARNING,
            name,
            "no method resets it"
            + (", for all are switched off" if off else "")
            + ": what one user leaves in it the next one finds",
            (*case.said(listing), Evidence(switch, "present" if there else "absent")),
            f"echo default > {listing}"
            if off
            else "give it to users who trust each other, or have the host started again between them",
        )
        return Check("reset", name, "none", (finding,))
    bus = device.address.rpartition(":")[0]
    beside = [d for d in case.snapshot.devices if d.address.rpartition(":")[0] == bus and d.key != device.key]
    if methods != ["bus"] or not beside:
        return Check("reset", name, " ".join(methods) or "possible")
    finding = Finding(
        "bus-reset-only",
        Severity.INFO,
        name,
        "it is reset with its bus only, and so are others, which are to go to the same user: "
        + listed(shown(d.key) for d in beside),
        case.said(listing),
        f"vfioctl reset {name} --show-scope shows what a reset reaches",
    )
    return Check("reset", name, "bus", (finding,))
