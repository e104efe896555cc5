"""What sPAPR containers and EEH refuse on POWER: with which errno, and what vfioctl says of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.refused import refused
from tests.kernel.guest.sysfs import give, group_of, take_back
from tests.kernel.guest.test_ppc64le import GIB, OTHER_WINDOW, POWERNV, PSERIES, RW, container_of
from vfioctl.host import spapr, vfio
from vfioctl.host.memory import Memory, make
from vfioctl.policy.refusals import State
from vfioctl.uapi import spapr as uapi
from vfioctl.uapi.vfio import VFIO_SPAPR_TCE_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU, VFIO_TYPE1v2_IOMMU

Roles = Mapping[str, str]

PAGE = 4096
MIB = 1 << 20
NOBODY = 65534
V1, V2 = State(backend="spapr-v1"), State(backend="spapr-v2")
REGISTER, UNREGISTER = (f"VFIO_IOMMU_SPAPR_{name}_MEMORY" for name in ("REGISTER", "UNREGISTER"))
CREATE, REMOVE = (f"VFIO_IOMMU_SPAPR_TCE_{name}" for name in ("CREATE", "REMOVE"))
MAP, UNMAP = "VFIO_IOMMU_MAP_DMA", "VFIO_IOMMU_UNMAP_DMA"
EEH = "VFIO_EEH_PE_OP"


@pytest.fixture(scope="module")
def lent(vfio_pci: Path, roles: Roles) -> Iterator[Roles]:
    addresses = [roles["edu"], roles["nic_a"]]
    for address in addresses:
        give(address, "vfio-pci")
    yield roles
    for address in addresses:
        take_back(address)


@pytest.fixture
def buffer() -> Iterator[Memory]:
    with make(size=16 * PAGE) as memory:
        yield memory


def in_child(work: Callable[[], object]) -> bool:
    """Whether ``work`` ends without an exception in a child process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def become_nobody(memlock: int) -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@PSERIES
def test_version_1(lent: Roles, buffer: Memory) -> None:
    here = buffer.address
    with vfio.opened(vfio.container_path()) as fresh:
        refused("VFIO_IOMMU_SPAPR_TCE_GET_INFO", "EINVAL", "kernel", spapr.tce_get_info, fresh)
    with container_of(VFIO_SPAPR_TCE_IOMMU, lent["edu"]) as (container, _):
        refused(MAP, "EPERM", "permission", vfio.iommu_map_dma, container, here, 0, PAGE, RW, state=V1)
        refused(UNMAP, "EPERM", "permission", vfio.iommu_unmap_dma, container, 0, PAGE, state=V1)
        spapr.enable(container)
        refused("VFIO_IOMMU_ENABLE", "EBUSY", "object-busy", spapr.enable, container)
        outside, odd = "iova-out-of-range", here + 8
        refused(MAP, "ENXIO", outside, vfio.iommu_map_dma, container, here, GIB, PAGE, RW, state=V1)
        refused(MAP, "EINVAL", outside, vfio.iommu_map_dma, container, odd, MIB, PAGE, RW, state=V1)
        refused(UNMAP, "ENXIO", outside, vfio.iommu_unmap_dma, container, GIB, PAGE, state=V1)
        refused(UNMAP, "EINVAL", outside, vfio.iommu_unmap_dma, container, 0, 100, state=V1)
        code = "not-supported"
        refused(REGISTER, "ENOTTY", code, spapr.register_memory, container, here, PAGE)
        refused(UNREGISTER, "ENOTTY", code, spapr.unregister_memory, container, here, PAGE)
        refused(CREATE, "ENOTTY", code, spapr.tce_create, container, 12, MIB)
        refused(REMOVE, "ENOTTY", code, spapr.tce_remove, container, 0)
        with vfio.opened(vfio.group_path(group_of(lent["nic_a"]))) as other:
            call, join = "VFIO_GROUP_SET_CONTAINER", vfio.group_set_container
            refused(call, "EBUSY", "group-busy", join, other, container, state=V1)


@PSERIES
def test_version_2(lent: Roles, buffer: Memory) -> None:
    here, outside = buffer.address, "iova-out-of-range"
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, lent["edu"]) as (container, _):
        refused("VFIO_SET_IOMMU", "EINVAL", "kernel", vfio.set_iommu, container, VFIO_SPAPR_TCE_v2_IOMMU)
        refused("VFIO_IOMMU_ENABLE", "ENOTTY", "not-supported", spapr.enable, container)
        refused("VFIO_IOMMU_DISABLE", "ENOTTY", "not-supported", spapr.disable, container)
        refused(MAP, "EPERM", "permission", vfio.iommu_map_dma, container, here, 0, PAGE, RW, state=V2)
        refused(REGISTER, "EINVAL", "memory-not-pinnable", spapr.register_memory, container, here + 8, PAGE)
        refused(REGISTER, "EFAULT", "memory-not-pinnable", spapr.register_memory, container, 0x10000, 0x10000)
        spapr.register_memory(container, here, 16 * PAGE)
        refused(REGISTER, "EBUSY", "object-busy", spapr.register_memory, container, here, 16 * PAGE)
        refused(UNREGISTER, "ENOENT", "not-mapped", spapr.unregister_memory, container, here, PAGE)
        refused(UNREGISTER, "EINVAL", "not-mapped", spapr.unregister_memory, container, here + 8, PAGE)
        for shift, size, levels in ((13, GIB, 1), (12, GIB, 99), (12, 0, 1)):
            refused(CREATE, "EINVAL", "window-invalid", spapr.tce_create, container, shift, size, levels)
        assert spapr.tce_create(container, 12, GIB) == OTHER_WINDOW
        refused(CREATE, "ENOSPC", "no-window-left", spapr.tce_create, container, 12, GIB)
        refused(MAP, "ENXIO", outside, vfio.iommu_map_dma, container, here, 4 * GIB, PAGE, RW, state=V2)
        odd = (container, here + 8, OTHER_WINDOW, PAGE, RW)
        refused(MAP, "EINVAL", outside, vfio.iommu_map_dma, *odd, state=V2)
        with make(size=PAGE) as unknown:
            arguments = (container, unknown.address, OTHER_WINDOW, PAGE, RW)
            refused(MAP, "EINVAL", outside, vfio.iommu_map_dma, *arguments, state=V2)
        refused(UNMAP, "ENXIO", outside, vfio.iommu_unmap_dma, container, 4 * GIB, PAGE, state=V2)
        refused(UNMAP, "EINVAL", outside, vfio.iommu_unmap_dma, container, OTHER_WINDOW, 100, state=V2)
        spapr.tce_remove(container, OTHER_WINDOW)
        refused(REMOVE, "EINVAL", "window-invalid", spapr.tce_remove, container, OTHER_WINDOW)
        code = "permission"
        assert in_child(
            lambda: refused(REGISTER, "EPERM", code, spapr.register_memory, container, here, PAGE)
        )
        spapr.unregister_memory(container, here, 16 * PAGE)


@PSERIES
def test_groups_of_a_partition_in_one_container(lent: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, lent["edu"]) as (container, _):
        spapr.tce_create(container, 12, GIB)
        with vfio.opened(vfio.group_path(group_of(lent["nic_a"]))) as other:
            call, join = "VFIO_GROUP_SET_CONTAINER", vfio.group_set_container
            viable = V2._replace(viable=True)
            refused(call, "EPERM", "not-supported", join, other, container, state=viable)


@PSERIES
def test_the_limit_of_locked_memory(lent: Roles) -> None:
    state = State(size=GIB, memlock_limit=16 * PAGE, memlock_locked=0)

    def version_1() -> None:
        with container_of(VFIO_SPAPR_TCE_IOMMU, lent["edu"]) as (container, _):
            become_nobody(16 * PAGE)
            refused("VFIO_IOMMU_ENABLE", "ENOMEM", "memlock", spapr.enable, container, state=state)

    def version_2() -> None:
        with container_of(VFIO_SPAPR_TCE_v2_IOMMU, lent["edu"]) as (container, _), make(size=MIB) as memory:
            become_nobody(16 * PAGE)
            register = spapr.register_memory
            refused(REGISTER, "ENOMEM", "memlock", register, container, memory.address, MIB, state=state)
            refused(CREATE, "ENOMEM", "memlock", spapr.tce_create, container, 12, GIB, state=state)

    assert in_child(version_1)
    assert in_child(version_2)


@PSERIES
def test_what_a_partition_does_not_have(lent: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, lent["edu"]) as (container, _):
        refused(EEH, "ENODEV", "no-eeh", spapr.eeh_pe_op, container, uapi.VFIO_EEH_PE_ENABLE)
    with (
        vfio.opened(vfio.container_path()) as container,
        vfio.opened(vfio.group_path(group_of(lent["edu"]))) as group,
    ):
        vfio.group_set_container(group, container)
        refused("VFIO_SET_IOMMU", "ENODEV", "no-iommu-backend", vfio.set_iommu, container, VFIO_TYPE1v2_IOMMU)


@POWERNV
def test_eeh(lent: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, lent["edu"]) as (container, _):
        spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_ENABLE)
        refused(EEH, "EINVAL", "eeh-invalid", spapr.eeh_pe_op, container, 77)
        refused(EEH, "EIO", "eeh-failed", spapr.eeh_inject_error, container, 0, 0)
        refused(EEH, "ERANGE EINVAL", "eeh-invalid", spapr.eeh_inject_error, container, 9, 0)
        spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_DISABLE)
