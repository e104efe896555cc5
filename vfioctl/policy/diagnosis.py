"""Why a host shows no IOMMU groups, from evidence rather than from the command line alone."""

from __future__ import annotations

from vfioctl.model import Device, Kernel, Platform, shown

#: Units of VT-d, of AMD-Vi and of s390: their drivers know from the start which devices are behind them.
KNOWING_UNITS = ("dmar", "ivhd", "s390-iommu")


def may_get_group(device: Device, kernel: Kernel) -> bool:
    """Whether a device without a group may be given one by its next driver: where the firmware tells device by device
    which IOMMU it is behind (device tree, IORT, VIOT), Linux looks that up when a driver is probed
    (drivers/of/device.c, of_dma_configure_id; drivers/acpi/scan.c, acpi_iommu_configure_id; from 6.15 on when the
    device is found)."""
    return device.driver is None and any(not unit.startswith(KNOWING_UNITS) for unit in kernel.iommu_units)


def why_no_group(device: Device, kernel: Kernel) -> tuple[str, str]:
    """(cause, cure) for a device that is in no group."""
    if may_get_group(device, kernel):
        return (
            "it has no driver, and this kernel gives a device its group when a driver is probed",
            f"vfioctl bind {shown(device.key)}",
        )
    return (
        "it is not behind an IOMMU that is on",
        "vfioctl doctor says why when there are no groups at all",
    )


def why_no_groups(platform: Platform) -> tuple[str, str]:
    """(cause, cure) for an empty list of groups. Source: the tables of firmware (DMAR, IVRS, IORT, VIOT, RIMT)
    say whether there is an IOMMU, /sys/class/iommu whether a driver runs it."""
    if not platform.sysfs_mounted:
        return "sysfs is not mounted here", "mount it: mount -t sysfs sysfs /sys"
    if not platform.groups_directory and not platform.iommu_units and not platform.firmware_tables:
        base = "this kernel has no IOMMU support, or the firmware describes no IOMMU"
    elif platform.iommu_units:
        return (
            "an IOMMU driver is active (" + ", ".join(platform.iommu_units) + ") but serves no device",
            "look in the kernel log for DMAR, AMD-Vi, smmu or virtio_iommu; load the IOMMU's driver before "
            "the devices' drivers",
        )
    elif platform.firmware_tables:
        table = platform.firmware_tables[0]
        return (
            f"the firmware describes an IOMMU (ACPI table {table}), but the kernel does not use it",
            _switch_on(platform),
        )
    else:
        base = "the firmware describes no IOMMU"
    if platform.machine in ("x86_64", "i686"):
        return (
            f"{base} (no ACPI table DMAR or IVRS)",
            "turn on VT-d, AMD IOMMU or SVM in the firmware setup; in a virtual machine, give it a virtual IOMMU "
            "(QEMU: -device intel-iommu,intremap=on). See also no-IOMMU mode in the manual",
        )
    return base, "check that the platform has an IOMMU and that firmware or the device tree describes it"


def _switch_on(platform: Platform) -> str:
    words = platform.cmdline.split()
    for word in words:
        if word in ("intel_iommu=off", "amd_iommu=off", "iommu=off"):
            return f"take {word} off the kernel command line and boot again"
    if "DMAR" in platform.firmware_tables and not any(w.startswith("intel_iommu=on") for w in words):
        return "add intel_iommu=on to the kernel command line and boot again"
    return "look in the kernel log (DMAR, AMD-Vi, smmu) for why its driver gave up"
