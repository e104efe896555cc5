"""What the errno of a refused sysfs write means, and what to do. Source: drivers/base/bus.c, drivers/base/dd.c,
drivers/pci/pci-driver.c, drivers/vfio/pci/vfio_pci_core.c, and runs on real kernels."""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, KernelRefusal, NotFound, PermissionDenied, VfioctlError
from vfioctl.model import Write, shown
from vfioctl.policy.buses import BUS_DRIVERS

_CAUSES: dict[tuple[str, int], tuple[str, str]] = {
    ("bind", errno.ENODEV): (
        "{driver} does not take {subject}: it has no matching id, or its probe found no such hardware",
        "the kernel log says why (dmesg); another driver may fit: --driver NAME, --to NAME",
    ),
    ("bind", errno.EINVAL): (
        # No coherent caches: 5.19 and newer; POWER promises them from 6.4 on only (device_iommu_capable).
        "{driver} refuses {subject}: it is a bridge, on the driver's denylist, in no IOMMU group, or its IOMMU does "
        "not promise coherent caches (on POWER from Linux 6.4 on)",
        "vfioctl show {subject}; the kernel log (dmesg) names the reason",
    ),
    ("bind", errno.EAGAIN): (
        "{driver} puts off {subject} until something that it depends on is there",
        "load the missing driver (the kernel log names it), then try again",
    ),
    ("bind", errno.ENOENT): (
        "there is no driver {driver} for {subject}, or the driver misses something",
        "modprobe the driver's module; the kernel log says what is missing (dmesg)",
    ),
    ("bind vfio-platform", errno.ENOENT): (
        "vfio-platform takes no device that it cannot reset, and has found no way to reset {subject}",
        "it takes a module with the alias vfio-reset:COMPATIBLE (what of_node/compatible says), or with ACPI a method "
        "_RST; the module parameter vfio_platform.reset_required=0 is unsafe: the device keeps what its user before "
        "has left in it",
    ),
    ("unbind", errno.ENODEV): (
        "{subject} is not bound to {driver} any more",
        "somebody else moved it meanwhile: look again with vfioctl show {subject}",
    ),
    ("driver_override", errno.ENOENT): (
        "{subject} is gone, or its bus has no driver_override",
        "vfioctl list-devices shows what is there",
    ),
    ("drivers_probe", errno.EINVAL): (
        "the kernel does not look for a driver for {subject}: its IOMMU group is in use through VFIO",
        "end the user of the group first: vfioctl holders {subject}",
    ),
    ("new_id", errno.EINVAL): (
        "{driver} does not accept the id",
        "use the default method (driver_override)",
    ),
    ("new_id", errno.ENOENT): (
        "there is no PCI driver {driver}, or it takes no dynamic ids",
        "modprobe vfio-pci",
    ),
}


def explain_write(write: Write, error: OSError, subject: str) -> VfioctlError:
    """The failure of a write to a sysfs file, with cause and cure. ``subject`` is the device concerned."""
    directory, _, file = write.path.rpartition("/")
    driver = directory.rpartition("/")[2]
    named = shown(subject)
    number = error.errno or 0
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"{write.path} may not be written",
            hint="run it as root; in a container /sys may be read-only",
            subject=named,
            errno=number,
        )
    if file == "bind" and number == errno.EBUSY:
        return Busy(
            f"{driver} cannot have {named}: another driver has it, its IOMMU group is in use through VFIO, "
            "or it has virtual functions enabled",
            hint=f"vfioctl show {named}; end the user of the group (vfioctl holders {named}), or "
            "write 0 to sriov_numvfs with the host driver bound",
            subject=named,
            errno=number,
        )
    known = _CAUSES.get((f"{file} {driver}", number)) or _CAUSES.get((file, number))
    cause = f"the kernel refused to write {write.data.strip()!r} to {write.path}: {error.strerror}"
    cure = "the kernel log may say more (dmesg)"
    if known is not None:
        cause, cure = (text.format(driver=driver, subject=named) for text in known)
    if file == "bind" and _is_variant(driver):
        cure += "\nwithout migration the device works with --driver vfio-pci"
    kind = NotFound if (file, number) == ("driver_override", errno.ENOENT) else KernelRefusal
    return kind(cause, hint=cure, subject=named, errno=number)


def _is_variant(driver: str) -> bool:
    """By its name, and for a hint only: all variants have VFIO's in theirs."""
    return "vfio" in driver and driver not in BUS_DRIVERS.values()
