"""By which rule a device has got its group: it depends on the IOMMU, and on the bus. (drivers/iommu: the device_group
of each driver; Linux 5.10 to 7.3.)"""

from __future__ import annotations

import re

from vfioctl.model import Device, IommuGroup, IommuUnit

#: PCI functions, by what they can reach: grouping.
PCI = "pci"
#: What each rule means for a device; {} stands for the name of the group.
DETAILS = {
    "function-group": "each PCI function of this machine has a group of its own: its IOMMU has a table for each",
    "partitionable-endpoint": "the firmware has divided the host bridges into parts that can be given away; "
    "all that is in one is a group{}",
    "dprc": "the objects of a DPRC are in the group of their container",
    "stream-id": "devices off PCI have a group each, unless they have a stream of the IOMMU in common",
    "device-id": "devices off PCI have a group each, unless the firmware gives them one name for their DMA",
    "swgroup": "the memory controller translates by groups of clients, and the group is one of these{}",
    "single-group": "this IOMMU knows but one address space, so that all that is behind it is one group",
    "device-group": "devices off PCI have a group each",
    "unknown": "how the driver of this IOMMU groups devices off PCI is not known here",
    "mediated": "a mediated device has a group of its own that stands for no IOMMU: the driver of its parent has to "
    "keep it apart",
    "no-iommu": "a group of no-IOMMU mode stands for no IOMMU: nothing keeps the device apart",
}
#: Rules by which a group has one member.
ALONE = frozenset({"function-group", "device-group", "mediated", "no-iommu"})
#: Drivers of IOMMUs with a single group.
_SINGLE = ("omap-iommu", "rk_iommu", "sun50i-iommu", "sprd-iommu", "vsi-iommu", "ipmmu-vmsa")
#: Those that give each device a group (generic_device_group), as VT-d and RISC-V's do.
_EACH = ("virtio_iommu", "exynos-sysmmu", "msm_iommu", "mtk-iommu-v1", "qcom-iommu")


def rule_of(device: Device, group: IommuGroup | None, unit: IommuUnit | None, machine: str | None) -> str:
    """The rule for a device by its group and the IOMMU that serves it, where these are known: PCI or one of DETAILS."""
    name, driver = unit or IommuUnit("")
    if device.bus == "mdev":
        return "mediated"
    if is_fake(group):
        return "no-iommu"
    if device.bus == "fsl-mc":
        return "dprc"
    if name.startswith("s390-iommu") or (machine or "").startswith("s390"):
        return "function-group"
    if (machine or "").startswith("ppc") or partition_of(group) is not None:
        return "partitionable-endpoint"
    if driver in _SINGLE:
        return "single-group"
    if device.bus == "pci":
        return PCI
    if name.startswith("ivhd"):
        return "device-id"
    if name.startswith(("smmu.", "smmu3.")):
        return "stream-id"
    if name.startswith(("dmar", "riscv-iommu")) or driver in _EACH:
        return "device-group"
    return "swgroup" if (driver or "").startswith("tegra") else "unknown"


def is_fake(group: IommuGroup | None) -> bool:
    """Whether the group is one of no-IOMMU mode (drivers/vfio/group.c, vfio_noiommu_group_alloc)."""
    return group is not None and (group.is_noiommu or group.name == "vfio-noiommu")


def partition_of(group: IommuGroup | None) -> int | None:
    """The PCI domain in a name of POWER's, ``domain1-pe0`` (arch/powerpc/kernel/iommu.c, iommu_register_group)."""
    match = re.fullmatch(r"domain(\d+)-pe[0-9a-f]+", (group.name if group is not None else None) or "")
    return None if match is None else int(match[1])


def agrees(rule: str, group: IommuGroup) -> bool | None:
    """Whether a group is as its rule wants it; None where the rule leaves that open."""
    if rule in ALONE:
        return len(group.devices) == 1
    if rule == "partitionable-endpoint":
        domains = {
            int(device.address.partition(":")[0], 16) for device in group.devices if device.bus == "pci"
        }
        return domains == {partition_of(group)}
    return True if len(group.devices) == 1 and rule in ("stream-id", "device-id") else None


def detail_of(rule: str, group: IommuGroup | None) -> str:
    """The rule in words."""
    called = f" ({group.name})" if group is not None and group.name else ""
    return DETAILS[rule].replace("{}", called)
