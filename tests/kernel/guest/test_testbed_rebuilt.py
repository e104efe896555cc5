"""The kernels with rebuilt VFIO modules have what Debian leaves out."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI
from vfioctl.host import iommufd, vfio, vfio_cdev
from vfioctl.uapi import iommufd as uapi

Roles = Mapping[str, str]

IOVA = 0x1000000
READ_WRITE = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE


@pytest.fixture
def edu(vfioctl: Vfioctl, roles: Roles) -> Iterator[str]:
    address = roles["edu"]
    assert vfioctl("bind", address).status == 0
    yield address
    assert vfioctl("unbind", address).status == 0


@pytest.mark.kernels("6.12-iommufd", "7.2-iommufd")
def test_a_device_is_bound_to_an_iommufd_and_memory_is_mapped(edu: str) -> None:
    (name,) = os.listdir(PCI / edu / "vfio-dev")
    with vfio.opened(vfio_cdev.device_path(name)) as device, vfio.opened(iommufd.iommufd_path()) as iommu:
        assert vfio_cdev.device_bind_iommufd(device, iommu) > 0
        ioas = iommufd.ioas_alloc(iommu)
        vfio_cdev.device_attach_iommufd_pt(device, ioas)
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            page = ctypes.c_char.from_buffer(memory)
            where = iommufd.ioas_map(iommu, ioas, ctypes.addressof(page), mmap.PAGESIZE, READ_WRITE, IOVA)
            assert where == IOVA
            assert iommufd.ioas_unmap(iommu, ioas, IOVA, mmap.PAGESIZE) == mmap.PAGESIZE
            del page
