"""The device nodes of Linux 6.6 (/dev/vfio/devices) in <linux/vfio.h>: binding and attaching (floor 1).

The request numbers are in ``vfio.py``.
"""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct

VFIO_DEVICE_BIND_FLAG_TOKEN = 1
VFIO_DEVICE_ATTACH_PASID = 1
VFIO_DEVICE_DETACH_PASID = 1


class vfio_device_bind_iommufd(CStruct, format="=IIiIQ"):
    """16 bytes do without a token, which Linux 6.6 does not know."""

    argsz: int = 0
    flags: int = 0
    iommufd: int = 0
    out_devid: int = 0
    token_uuid_ptr: int = 0


class vfio_device_attach_iommufd_pt(CStruct, format="=IIII"):
    """12 bytes do without a PASID, which Linux 6.6 does not know."""

    argsz: int = 0
    flags: int = 0
    pt_id: int = 0
    pasid: int = 0


class vfio_device_detach_iommufd_pt(CStruct, format="=III"):
    """8 bytes do without a PASID, which Linux 6.6 does not know."""

    argsz: int = 0
    flags: int = 0
    pasid: int = 0
