"""Every request number, literally, on a machine of each encoding."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from vfioctl.uapi.ioctl import Request, ioc_none

REQUESTS = [
    ("VFIO_GET_API_VERSION", 0x3B64, 0x20003B64),
    ("VFIO_CHECK_EXTENSION", 0x3B65, 0x20003B65),
    ("VFIO_SET_IOMMU", 0x3B66, 0x20003B66),
    ("VFIO_GROUP_GET_STATUS", 0x3B67, 0x20003B67),
    ("VFIO_GROUP_SET_CONTAINER", 0x3B68, 0x20003B68),
    ("VFIO_GROUP_UNSET_CONTAINER", 0x3B69, 0x20003B69),
    ("VFIO_GROUP_GET_DEVICE_FD", 0x3B6A, 0x20003B6A),
    ("VFIO_DEVICE_GET_INFO", 0x3B6B, 0x20003B6B),
    ("VFIO_DEVICE_GET_REGION_INFO", 0x3B6C, 0x20003B6C),
    ("VFIO_DEVICE_GET_IRQ_INFO", 0x3B6D, 0x20003B6D),
    ("VFIO_DEVICE_SET_IRQS", 0x3B6E, 0x20003B6E),
    ("VFIO_DEVICE_RESET", 0x3B6F, 0x20003B6F),
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", 0x3B70, 0x20003B70),
    ("VFIO_DEVICE_PCI_HOT_RESET", 0x3B71, 0x20003B71),
    ("VFIO_DEVICE_QUERY_GFX_PLANE", 0x3B72, 0x20003B72),
    ("VFIO_DEVICE_GET_GFX_DMABUF", 0x3B73, 0x20003B73),
    ("VFIO_DEVICE_IOEVENTFD", 0x3B74, 0x20003B74),
    ("VFIO_DEVICE_FEATURE", 0x3B75, 0x20003B75),
    ("VFIO_DEVICE_BIND_IOMMUFD", 0x3B76, 0x20003B76),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 0x3B77, 0x20003B77),
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", 0x3B78, 0x20003B78),
    ("VFIO_MIG_GET_PRECOPY_INFO", 0x3B79, 0x20003B79),
    ("VFIO_IOMMU_GET_INFO", 0x3B70, 0x20003B70),
    ("VFIO_IOMMU_MAP_DMA", 0x3B71, 0x20003B71),
    ("VFIO_IOMMU_UNMAP_DMA", 0x3B72, 0x20003B72),
    ("VFIO_IOMMU_ENABLE", 0x3B73, 0x20003B73),
    ("VFIO_IOMMU_DISABLE", 0x3B74, 0x20003B74),
    ("VFIO_IOMMU_DIRTY_PAGES", 0x3B75, 0x20003B75),
    ("VFIO_IOMMU_SPAPR_TCE_GET_INFO", 0x3B70, 0x20003B70),
    ("VFIO_EEH_PE_OP", 0x3B79, 0x20003B79),
    ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", 0x3B75, 0x20003B75),
    ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", 0x3B76, 0x20003B76),
    ("VFIO_IOMMU_SPAPR_TCE_CREATE", 0x3B77, 0x20003B77),
    ("VFIO_IOMMU_SPAPR_TCE_REMOVE", 0x3B78, 0x20003B78),
]

IOMMUFD_REQUESTS = [
    ("IOMMU_DESTROY", 0x3B80, 0x20003B80),
    ("IOMMU_IOAS_ALLOC", 0x3B81, 0x20003B81),
    ("IOMMU_IOAS_ALLOW_IOVAS", 0x3B82, 0x20003B82),
    ("IOMMU_IOAS_COPY", 0x3B83, 0x20003B83),
    ("IOMMU_IOAS_IOVA_RANGES", 0x3B84, 0x20003B84),
    ("IOMMU_IOAS_MAP", 0x3B85, 0x20003B85),
    ("IOMMU_IOAS_UNMAP", 0x3B86, 0x20003B86),
    ("IOMMU_OPTION", 0x3B87, 0x20003B87),
    ("IOMMU_VFIO_IOAS", 0x3B88, 0x20003B88),
    ("IOMMU_HWPT_ALLOC", 0x3B89, 0x20003B89),
    ("IOMMU_GET_HW_INFO", 0x3B8A, 0x20003B8A),
    ("IOMMU_HWPT_SET_DIRTY_TRACKING", 0x3B8B, 0x20003B8B),
    ("IOMMU_HWPT_GET_DIRTY_BITMAP", 0x3B8C, 0x20003B8C),
    ("IOMMU_HWPT_INVALIDATE", 0x3B8D, 0x20003B8D),
    ("IOMMU_FAULT_QUEUE_ALLOC", 0x3B8E, 0x20003B8E),
    ("IOMMU_IOAS_MAP_FILE", 0x3B8F, 0x20003B8F),
    ("IOMMU_VIOMMU_ALLOC", 0x3B90, 0x20003B90),
    ("IOMMU_VDEVICE_ALLOC", 0x3B91, 0x20003B91),
    ("IOMMU_IOAS_CHANGE_PROCESS", 0x3B92, 0x20003B92),
    ("IOMMU_VEVENTQ_ALLOC", 0x3B93, 0x20003B93),
    ("IOMMU_HW_QUEUE_ALLOC", 0x3B94, 0x20003B94),
    ("IOMMU_IOAS_NOIOMMU_GET_PA", 0x3B95, 0x20003B95),
]


def load(module: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A copy of a module of vfioctl.uapi as it comes out on another machine."""
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*uname[:4], machine)))
    other: dict[str, ModuleType] = {}
    for name in ("ioctl", module):
        spec = importlib.util.find_spec(f"vfioctl.uapi.{name}")
        assert spec is not None and spec.loader is not None
        other[name] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"vfioctl.uapi.{name}", other[name])
        spec.loader.exec_module(other[name])
    return other[module]


@pytest.fixture(params=["x86_64", "ppc64le"])
def machine(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(("module", "rows"), [("vfio", REQUESTS), ("iommufd", IOMMUFD_REQUESTS)])
def test_every_request(
    module: str, rows: list[tuple[str, int, int]], machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(module, machine, monkeypatch)
    column = 1 if machine == "x86_64" else 2
    declared = {name: int(value) for name, value in vars(loaded).items() if type(value).__name__ == "Request"}
    assert declared == {row[0]: row[column] for row in rows}


def test_a_request_knows_its_name() -> None:
    from vfioctl.uapi import iommufd, vfio

    declared = (vars(vfio) | vars(iommufd)).items()
    requests = {name: value for name, value in declared if isinstance(value, Request)}
    assert requests
    assert all(value.name == name for name, value in requests.items())


@pytest.mark.parametrize(
    "machine", ["ppc", "ppc64", "ppc64le", "mips", "mips64", "sparc", "sparc64", "alpha"]
)
def test_none_is_a_bit(machine: str) -> None:
    assert ioc_none(machine) == 0x20000000


@pytest.mark.parametrize(
    "machine", ["x86_64", "i686", "aarch64", "armv7l", "riscv64", "s390x", "loongarch64", "parisc"]
)
def test_none_is_nothing(machine: str) -> None:
    assert ioc_none(machine) == 0
