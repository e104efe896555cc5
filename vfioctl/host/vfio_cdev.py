"""Device nodes of Linux 6.6: a device bound to an iommufd and attached to its page tables (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`. There is no unbinding: closing the device does it.
"""

from __future__ import annotations

import os
from array import array
from uuid import UUID

from vfioctl.host.ioctl import ioctl
from vfioctl.uapi import cdev, vfio


def device_path(name: str, dev: str = "/dev") -> str:
    """The node of a device: ``vfioN``, or ``noiommu-vfioN``, as its directory under ``vfio-dev`` in sysfs."""
    return os.path.join(dev, "vfio", "devices", name)


def device_bind_iommufd(device: int, iommufd: int, token: UUID | None = None) -> int:
    """Give the device to an iommufd, which **resets** it; returns its id there. Nothing else works before.

    ``token`` is the VF token, which Linux 6.17 takes here.
    """
    question = cdev.vfio_device_bind_iommufd(argsz=16, iommufd=iommufd)
    token_bytes = array("B", b"" if token is None else token.bytes)
    if token is not None:
        question.argsz = question.size_of
        question.flags = cdev.VFIO_DEVICE_BIND_FLAG_TOKEN
        question.token_uuid_ptr, _ = token_bytes.buffer_info()
    buffer = question.pack()
    ioctl(device, vfio.VFIO_DEVICE_BIND_IOMMUFD, buffer)
    return cdev.vfio_device_bind_iommufd.unpack(buffer).out_devid


def device_attach_iommufd_pt(device: int, pt_id: int, pasid: int | None = None) -> int:
    """Let the device use an IOAS or a HWPT, in the place of the one it had; returns the id of the HWPT it uses now,
    which for an IOAS the kernel has chosen. With ``pasid``, for the device's accesses with that only."""
    question = cdev.vfio_device_attach_iommufd_pt(argsz=12, pt_id=pt_id)
    if pasid is not None:
        question = cdev.vfio_device_attach_iommufd_pt(
            flags=cdev.VFIO_DEVICE_ATTACH_PASID, pt_id=pt_id, pasid=pasid
        )
    buffer = question.pack()
    ioctl(device, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, buffer)
    return cdev.vfio_device_attach_iommufd_pt.unpack(buffer).pt_id


def device_detach_iommufd_pt(device: int, pasid: int | None = None) -> None:
    """Take the device (or its PASID) from what it is attached to; all its DMA is blocked then. Twice is no error."""
    question = cdev.vfio_device_detach_iommufd_pt(argsz=8)
    if pasid is not None:
        question = cdev.vfio_device_detach_iommufd_pt(flags=cdev.VFIO_DEVICE_DETACH_PASID, pasid=pasid)
    ioctl(device, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, question.pack())
