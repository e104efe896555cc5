"""The numbers of a VFIO device in words: its regions, interrupts and flags (floor 2).

Names are those of <linux/vfio.h>, in lower case and without what they have in common.
"""

from __future__ import annotations

from vfioctl.host.vfio_device import RegionInfo
from vfioctl.uapi import feature, pci, vfio

DEVICE_FLAGS = {
    "reset": vfio.VFIO_DEVICE_FLAGS_RESET,
    "pci": vfio.VFIO_DEVICE_FLAGS_PCI,
    "platform": vfio.VFIO_DEVICE_FLAGS_PLATFORM,
    "amba": vfio.VFIO_DEVICE_FLAGS_AMBA,
    "ccw": vfio.VFIO_DEVICE_FLAGS_CCW,
    "ap": vfio.VFIO_DEVICE_FLAGS_AP,
    "fsl_mc": vfio.VFIO_DEVICE_FLAGS_FSL_MC,
    "caps": vfio.VFIO_DEVICE_FLAGS_CAPS,
    "cdx": vfio.VFIO_DEVICE_FLAGS_CDX,
}
REGION_FLAGS = {
    "read": vfio.VFIO_REGION_INFO_FLAG_READ,
    "write": vfio.VFIO_REGION_INFO_FLAG_WRITE,
    "mmap": vfio.VFIO_REGION_INFO_FLAG_MMAP,
}
IRQ_FLAGS = {
    "eventfd": vfio.VFIO_IRQ_INFO_EVENTFD,
    "maskable": vfio.VFIO_IRQ_INFO_MASKABLE,
    "automasked": vfio.VFIO_IRQ_INFO_AUTOMASKED,
    "noresize": vfio.VFIO_IRQ_INFO_NORESIZE,
}

ATOMIC_COMPLETIONS = {
    "32": pci.VFIO_PCI_ATOMIC_COMP32,
    "64": pci.VFIO_PCI_ATOMIC_COMP64,
    "128": pci.VFIO_PCI_ATOMIC_COMP128,
}
MIGRATION_FLAGS = {
    "stop_copy": feature.VFIO_MIGRATION_STOP_COPY,
    "p2p": feature.VFIO_MIGRATION_P2P,
    "pre_copy": feature.VFIO_MIGRATION_PRE_COPY,
}
MIGRATION_STATES = {
    feature.VFIO_DEVICE_STATE_ERROR: "error",
    feature.VFIO_DEVICE_STATE_STOP: "stop",
    feature.VFIO_DEVICE_STATE_RUNNING: "running",
    feature.VFIO_DEVICE_STATE_STOP_COPY: "stop_copy",
    feature.VFIO_DEVICE_STATE_RESUMING: "resuming",
    feature.VFIO_DEVICE_STATE_RUNNING_P2P: "running_p2p",
    feature.VFIO_DEVICE_STATE_PRE_COPY: "pre_copy",
    feature.VFIO_DEVICE_STATE_PRE_COPY_P2P: "pre_copy_p2p",
}
#: Features by name: their number, and the operation that they are of use with.
FEATURES = {
    "pci_vf_token": (feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, feature.VFIO_DEVICE_FEATURE_SET),
    "migration": (feature.VFIO_DEVICE_FEATURE_MIGRATION, feature.VFIO_DEVICE_FEATURE_GET),
    "mig_device_state": (feature.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, feature.VFIO_DEVICE_FEATURE_GET),
    "low_power_entry": (feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, feature.VFIO_DEVICE_FEATURE_SET),
    "low_power_entry_with_wakeup": (
        feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
        feature.VFIO_DEVICE_FEATURE_SET,
    ),
    "low_power_exit": (feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, feature.VFIO_DEVICE_FEATURE_SET),
    "dma_logging_start": (feature.VFIO_DEVICE_FEATURE_DMA_LOGGING_START, feature.VFIO_DEVICE_FEATURE_SET),
    "dma_logging_stop": (feature.VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, feature.VFIO_DEVICE_FEATURE_SET),
    "dma_logging_report": (feature.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, feature.VFIO_DEVICE_FEATURE_GET),
    "mig_data_size": (feature.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, feature.VFIO_DEVICE_FEATURE_GET),
    "bus_master": (feature.VFIO_DEVICE_FEATURE_BUS_MASTER, feature.VFIO_DEVICE_FEATURE_SET),
    "dma_buf": (feature.VFIO_DEVICE_FEATURE_DMA_BUF, feature.VFIO_DEVICE_FEATURE_GET),
    "mig_precopy_infov2": (feature.VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, feature.VFIO_DEVICE_FEATURE_SET),
    "zpci_error": (feature.VFIO_DEVICE_FEATURE_ZPCI_ERROR, feature.VFIO_DEVICE_FEATURE_GET),
}

_PCI_REGIONS = ("bar0", "bar1", "bar2", "bar3", "bar4", "bar5", "rom", "config", "vga")
_PCI_IRQS = ("intx", "msi", "msix", "err", "req")
_CCW_REGIONS = ("config",)
_CCW_IRQS = ("io", "crw", "req")
_AP_IRQS = ("req", "cfg_chg")

#: Device-specific regions by (type, subtype); a PCI vendor's type is 0x80000000 and the vendor id.
_TYPES = {
    (1, 1): "gfx_edid",
    (2, 1): "ccw_async_cmd",
    (2, 2): "ccw_schib",
    (2, 3): "ccw_crw",
    (3, 1): "migration_v1",
    (0x80008086, 1): "igd_opregion",
    (0x80008086, 2): "igd_host_cfg",
    (0x80008086, 3): "igd_lpc_cfg",
    (0x800010DE, 1): "nvlink2_ram",
    (0x80001014, 1): "nvlink2_atsd",
}


def flags(value: int, names: dict[str, int]) -> list[str]:
    """The names of the flags that are set; a bit without a name is left out."""
    return [name for name, bit in names.items() if value & bit]


def region_name(device_flags: int, index: int, region: RegionInfo) -> str:
    """``bar0``, ``config``, ``igd_opregion``; ``type_3_1`` for a type without a name, ``7`` for what has none."""
    if region.type is not None:
        return _TYPES.get(region.type) or f"type_{region.type[0]:x}_{region.type[1]:x}"
    names: tuple[str, ...] = ()
    if device_flags & vfio.VFIO_DEVICE_FLAGS_PCI:
        names = _PCI_REGIONS
    elif device_flags & vfio.VFIO_DEVICE_FLAGS_CCW:
        names = _CCW_REGIONS
    return names[index] if index < len(names) else str(index)


def irq_name(device_flags: int, index: int) -> str:
    """``intx``, ``msi``; the number of an interrupt of a device whose interrupts have no names."""
    names: tuple[str, ...] = ()
    if device_flags & vfio.VFIO_DEVICE_FLAGS_PCI:
        names = _PCI_IRQS
    elif device_flags & vfio.VFIO_DEVICE_FLAGS_CCW:
        names = _CCW_IRQS
    elif device_flags & vfio.VFIO_DEVICE_FLAGS_AP:
        names = _AP_IRQS
    return names[index] if index < len(names) else str(index)
