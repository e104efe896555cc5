"""What <linux/vfio.h> and <linux/vfio_zdev.h> have for PCI devices only: hot reset and capabilities (floor 1)."""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct

VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1
VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 2
VFIO_PCI_DEVID_OWNED = 0
VFIO_PCI_DEVID_NOT_OWNED = -1

VFIO_DEVICE_INFO_CAP_ZPCI_BASE = 1
VFIO_DEVICE_INFO_CAP_ZPCI_GROUP = 2
VFIO_DEVICE_INFO_CAP_ZPCI_UTIL = 3
VFIO_DEVICE_INFO_CAP_ZPCI_PFIP = 4
VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5
VFIO_PCI_ATOMIC_COMP32 = 1
VFIO_PCI_ATOMIC_COMP64 = 2
VFIO_PCI_ATOMIC_COMP128 = 4
VFIO_DEVICE_INFO_ZPCI_FLAG_REFRESH = 1


class vfio_pci_hot_reset_info(CStruct, format="=III"):
    """Followed by ``count`` times ``vfio_pci_dependent_device``."""

    argsz: int = 0
    flags: int = 0
    count: int = 0


class vfio_pci_dependent_device(CStruct, format="=iHBB"):
    """``group_id`` is a ``devid`` with FLAG_DEV_ID; signed, for that may be VFIO_PCI_DEVID_NOT_OWNED."""

    group_id: int = 0
    segment: int = 0
    bus: int = 0
    devfn: int = 0


class vfio_pci_hot_reset(CStruct, format="=III"):
    """Followed by ``count`` group descriptors, each an int."""

    argsz: int = 0
    flags: int = 0
    count: int = 0


class vfio_device_info_cap_pci_atomic_comp(CStruct, format="=8xI4x"):
    flags: int = 0


class vfio_device_info_cap_zpci_base(CStruct, format="=8xQQHHHBB"):
    """As Linux 5.10 has it, 32 bytes; version 2 of the capability (6.0) goes on with ``fh``."""

    start_dma: int = 0
    end_dma: int = 0
    pchid: int = 0
    vfn: int = 0
    fmb_length: int = 0
    pft: int = 0
    gid: int = 0


class vfio_device_info_cap_zpci_base_fh(CStruct, format="=32xI"):
    """The function handle that version 2 of the base capability ends with (no struct of its own in C)."""

    fh: int = 0


class vfio_device_info_cap_zpci_group(CStruct, format="=8xQQQHHHBx"):
    """As Linux 5.10 has it, 40 bytes: what version 2 appends matters to nobody but a guest's kernel."""

    dasm: int = 0
    msi_addr: int = 0
    flags: int = 0
    mui: int = 0
    noi: int = 0
    maxstbl: int = 0
    version: int = 0


class vfio_device_info_cap_zpci_util(CStruct, format="=8xI"):
    """Followed by ``size`` bytes."""

    size: int = 0


class vfio_device_info_cap_zpci_pfip(CStruct, format="=8xI"):
    """Followed by ``size`` bytes."""

    size: int = 0
