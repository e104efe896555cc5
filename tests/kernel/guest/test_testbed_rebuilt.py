"""The kernels with rebuilt VFIO modules have what Debian leaves out."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, modprobe
from vfioctl.host import iommufd, vfio, vfio_cdev
from vfioctl.uapi import iommufd as uapi

Roles = Mapping[str, str]

UNSAFE = Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
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


@pytest.mark.kernels("6.12-iommufd")
@pytest.mark.machine("no-iommu")
def test_a_device_without_an_iommu_gets_a_group_by_the_unsafe_mode(vfioctl: Vfioctl, roles: Roles) -> None:
    address = roles["edu"]
    modprobe("vfio-pci")
    assert vfioctl("bind", address, "-J").json_error["code"] == "no-iommu-group"
    UNSAFE.write_text("Y")
    try:
        bound = vfioctl("bind", address, "-J")
        assert bound.status == 0, bound.stderr
        (record,) = bound.json["devices"]
        assert record["node"]["path"] == "/dev/vfio/noiommu-0"
        assert "the device can reach all memory" in bound.stderr
        assert Path("/dev/vfio/noiommu-0").is_char_device()
        checked = vfioctl("check-viable", address, "--usable", "-J")
        assert checked.status == 1
        assert [problem["code"] for problem in checked.json["results"][0]["problems"]] == ["noiommu"]
        assert vfioctl("unbind", address).status == 0
        assert not Path("/dev/vfio/noiommu-0").exists()
    finally:
        UNSAFE.write_text("N")


@pytest.mark.kernels("6.12-compat")
def test_iommufd_stands_in_for_the_container(vfioctl: Vfioctl, edu: str) -> None:
    assert not Path("/sys/module/vfio_iommu_type1").exists()
    for backend in ("type1v2", "type1"):
        mapped = vfioctl("map", edu, "--backend", backend, "-J")
        assert (mapped.status, mapped.json["backend"]) == (0, backend), mapped.stderr
