"""What iommufd and device nodes refuse: with which errno, and what vfioctl says of it.

The kernels are Debian's with these parts of them rebuilt (see testbed/rebuild.py).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from tests.kernel.guest.refused import refused
from tests.kernel.guest.sysfs import PCI, driver_of, give, group_of, need_driver, probe, take_back, unbind
from vfioctl.host import (
    iommufd,
    iommufd_hw,
    vfio,
    vfio_cdev,
    vfio_device,
    vfio_dirty,
    vfio_features,
    vfio_reset,
)
from vfioctl.host.ioctl import open_node
from vfioctl.host.memory import Memory, Source, make
from vfioctl.policy.refusals import State
from vfioctl.uapi import iommufd as uapi
from vfioctl.uapi import vfio as container_uapi

pytestmark = pytest.mark.kernels("6.12-iommufd", "7.2-iommufd")

Roles = Mapping[str, str]

PAGE = 4096
MIB = 1 << 20
HOLE = 0xFEE00000  # where x86 has the addresses of interrupts
RW = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE
READ = uapi.IOMMU_IOAS_MAP_READABLE
NONE = 9999  # no descriptor, no object
NOBODY = 65534
BIND, ATTACH, DETACH = (
    f"VFIO_DEVICE_{name}" for name in ("BIND_IOMMUFD", "ATTACH_IOMMUFD_PT", "DETACH_IOMMUFD_PT")
)


@pytest.fixture(scope="module")
def lent(vfio_pci: Path, roles: Roles) -> Iterator[None]:
    """Devices of three groups on vfio-pci; of the group of ``mf0`` the other function is not."""
    addresses = [roles[role] for role in ("edu", "nic_a", "mf0")]
    for address in addresses:
        give(address, "vfio-pci")
    yield
    for address in addresses:
        take_back(address)


@pytest.fixture
def iommu(lent: None) -> Iterator[int]:
    """A fresh iommufd."""
    with vfio.opened(iommufd.iommufd_path()) as fd:
        yield fd


@pytest.fixture
def buffer() -> Iterator[Memory]:
    with make(size=16 * PAGE) as memory:
        yield memory


def node_of(address: str) -> str:
    (name,) = os.listdir(PCI / address / "vfio-dev")
    return vfio_cdev.device_path(name)


@contextmanager
def bound(address: str, iommu: int) -> Iterator[tuple[int, int]]:
    """A device bound to the iommufd and its id there, while the block runs."""
    with vfio.opened(node_of(address)) as device:
        yield device, vfio_cdev.device_bind_iommufd(device, iommu)


def as_nobody(work: Callable[[], object], memlock: int) -> bool:
    """Whether ``work`` ends without an exception in a child process of user nobody with that limit of locked memory."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def newer() -> bool:
    """Whether this kernel has what came with Linux 6.13."""
    return os.uname().release.startswith("7.")


def test_nodes_that_a_user_may_not_open(iommu: int, roles: Roles) -> None:
    def child() -> None:
        for path in (iommufd.iommufd_path(), node_of(roles["edu"])):
            refused("open", "EACCES", "permission", open_node, path)

    assert as_nobody(child, PAGE)


def test_objects(iommu: int) -> None:
    refused("IOMMU_DESTROY", "ENOENT", "no-such-object", iommufd.destroy, iommu, NONE)
    refused("IOMMU_IOAS_IOVA_RANGES", "ENOENT", "no-such-object", iommufd.ioas_iova_ranges, iommu, NONE)
    refused("IOMMU_IOAS_ALLOW_IOVAS", "ENOENT", "no-such-object", iommufd.ioas_allow_iovas, iommu, NONE, [])
    ioas = iommufd.ioas_alloc(iommu)
    assert iommufd.ioas_iova_ranges(iommu, ioas) == (((0, 2**64 - 1),), 1)
    call = "IOMMU_IOAS_ALLOW_IOVAS"
    for ranges in ([(0, 0xFFFF), (0x8000, 0x1FFFF)], [(5, 5)], [(9, 5)]):
        refused(call, "EINVAL", "iova-out-of-range", iommufd.ioas_allow_iovas, iommu, ioas, ranges)
    iommufd.ioas_allow_iovas(iommu, ioas, [(0, 0xFFFFF)])
    iommufd.ioas_allow_iovas(iommu, ioas, [])
    refused("IOMMU_VFIO_IOAS", "ENODEV", "no-such-object", iommufd.vfio_ioas_get, iommu)
    refused("IOMMU_VFIO_IOAS", "ENOENT", "no-such-object", iommufd.vfio_ioas_set, iommu, NONE)
    iommufd.vfio_ioas_set(iommu, ioas)
    assert iommufd.vfio_ioas_get(iommu) == ioas
    iommufd.vfio_ioas_clear(iommu)
    refused("IOMMU_VFIO_IOAS", "ENODEV", "no-such-object", iommufd.vfio_ioas_get, iommu)
    iommufd.destroy(iommu, ioas)


def test_mappings_without_a_device(iommu: int, buffer: Memory) -> None:
    ioas = iommufd.ioas_alloc(iommu)
    call, here = "IOMMU_IOAS_MAP", buffer.address
    assert iommufd.ioas_map(iommu, ioas, here, 4 * PAGE, RW, MIB) == MIB
    for code, name, arguments in (
        ("no-such-object", "ENOENT", (NONE, here, PAGE, RW, MIB)),
        ("mapping-overlap", "EEXIST", (ioas, here, PAGE, RW, MIB + PAGE)),
        ("iova-out-of-range", "EINVAL", (ioas, here, 0, RW, 2 * MIB)),
        ("iova-out-of-range", "EINVAL", (ioas, here, PAGE, 0, 2 * MIB)),
        ("iova-out-of-range", "EOVERFLOW", (ioas, here, PAGE, RW, 2**64 - 1)),
        ("iova-out-of-range", "EOVERFLOW", (ioas, here, 2 * PAGE, RW, 2**64 - PAGE)),
    ):
        refused(call, name, code, iommufd.ioas_map, iommu, *arguments)
    iommufd.ioas_allow_iovas(iommu, ioas, [(MIB, MIB + 16 * PAGE - 1)])
    # At its place, for one that iommufd chooses is aligned as the memory is, of which mmap decides.
    iommufd.ioas_map(iommu, ioas, here, 12 * PAGE, RW, MIB + 4 * PAGE)
    refused(call, "ENOSPC", "iova-out-of-range", iommufd.ioas_map, iommu, ioas, here, PAGE, RW)
    assert iommufd.ioas_unmap_all(iommu, ioas) == 16 * PAGE
    assert iommufd.ioas_unmap_all(iommu, ioas) == 0
    # What cannot be pinned is seen when a device is attached.
    iommufd.ioas_map(iommu, ioas, PAGE, PAGE, RW, MIB)


def test_unmapping(iommu: int, buffer: Memory) -> None:
    ioas = iommufd.ioas_alloc(iommu)
    iommufd.ioas_map(iommu, ioas, buffer.address, 4 * PAGE, RW, MIB)
    call, unmap = "IOMMU_IOAS_UNMAP", iommufd.ioas_unmap
    refused(call, "ENOENT", "unmap-partial", unmap, iommu, ioas, 2 * MIB, PAGE)
    refused(call, "ENOENT", "unmap-partial", unmap, iommu, ioas, MIB, PAGE)
    refused(call, "EINVAL", "unmap-partial", unmap, iommu, ioas, MIB, 0)
    refused(call, "EOVERFLOW", "iova-out-of-range", unmap, iommu, ioas, 2**64 - PAGE, 2 * PAGE)
    assert unmap(iommu, ioas, 0, 2 * MIB) == 4 * PAGE


def test_copies(iommu: int, buffer: Memory) -> None:
    source, target = iommufd.ioas_alloc(iommu), iommufd.ioas_alloc(iommu)
    iommufd.ioas_map(iommu, source, buffer.address, 4 * PAGE, READ, MIB)
    call, copy = "IOMMU_IOAS_COPY", iommufd.ioas_copy
    assert copy(iommu, source, MIB + PAGE, 2 * PAGE, target, READ, 2 * MIB) == 2 * MIB
    refused(call, "ENOENT", "not-mapped", copy, iommu, source, MIB, 8 * PAGE, target, READ)
    refused(call, "EPERM", "read-only", copy, iommu, source, MIB, PAGE, target, RW)
    refused(call, "EEXIST", "mapping-overlap", copy, iommu, source, MIB, PAGE, target, READ, 2 * MIB)
    refused(call, "EINVAL", "iova-out-of-range", copy, iommu, source, MIB, 0, target, READ)
    refused(call, "EOVERFLOW", "iova-out-of-range", copy, iommu, source, MIB, PAGE, target, READ, 2**64 - 1)
    iommufd.ioas_allow_iovas(iommu, target, [(2 * MIB, 2 * MIB + 2 * PAGE - 1)])
    refused(call, "ENOSPC", "iova-out-of-range", copy, iommu, source, MIB, PAGE, target, READ)
    assert iommufd.ioas_unmap_all(iommu, target) == 2 * PAGE


def test_files(iommu: int, buffer: Memory) -> None:
    ioas = iommufd.ioas_alloc(iommu)
    call, map_file = "IOMMU_IOAS_MAP_FILE", iommufd.ioas_map_file
    with make(Source("memfd"), 4 * PAGE) as memory:
        assert memory.fd is not None
        if not newer():
            refused(call, "ENOTTY", "not-supported", map_file, iommu, ioas, memory.fd, 0, PAGE, RW)
            refused(
                "IOMMU_IOAS_CHANGE_PROCESS", "ENOTTY", "not-supported", iommufd.ioas_change_process, iommu
            )
            return
        assert map_file(iommu, ioas, memory.fd, PAGE, 2 * PAGE, RW, MIB) == MIB
        refused(call, "EBADF", "memory-not-pinnable", map_file, iommu, ioas, NONE, 0, PAGE, RW)
        refused(call, "EINVAL", "memory-not-pinnable", map_file, iommu, ioas, memory.fd, 0, 0, RW)
        for code, name, where in (
            ("mapping-overlap", "EEXIST", MIB),
            ("iova-out-of-range", "EOVERFLOW", 2**64 - 1),
        ):
            refused(call, name, code, map_file, iommu, ioas, memory.fd, 0, PAGE, RW, where)
        refused(call, "ENOENT", "no-such-object", map_file, iommu, NONE, memory.fd, 0, PAGE, RW)
        iommufd.ioas_change_process(iommu)
        iommufd.ioas_map(iommu, ioas, buffer.address, PAGE, RW, 2 * MIB)
        refused("IOMMU_IOAS_CHANGE_PROCESS", "EINVAL", "not-supported", iommufd.ioas_change_process, iommu)


def test_options(iommu: int) -> None:
    call, get, put = "IOMMU_OPTION", iommufd.option_get, iommufd.option_set
    mode, pages = uapi.IOMMU_OPTION_RLIMIT_MODE, uapi.IOMMU_OPTION_HUGE_PAGES
    assert get(iommu, mode) == 0
    put(iommu, mode, 1)
    assert get(iommu, mode) == 1
    assert as_nobody(lambda: refused(call, "EPERM", "permission", put, iommu, mode, 0), PAGE)
    refused(call, "EOPNOTSUPP", "not-supported", get, iommu, 99)
    refused(call, "EINVAL", "kernel", put, iommu, mode, 2)
    refused(call, "ENOENT", "no-such-object", get, iommu, pages, NONE)
    ioas = iommufd.ioas_alloc(iommu)
    refused(call, "EBUSY", "object-busy", put, iommu, mode, 0)
    assert get(iommu, pages, ioas) == 1
    put(iommu, pages, 0, ioas)
    assert get(iommu, pages, ioas) == 0


def test_a_device_before_it_is_bound(iommu: int, roles: Roles) -> None:
    with vfio.opened(node_of(roles["edu"])) as device, vfio.opened("/dev/null") as other:
        refused("VFIO_DEVICE_GET_INFO", "EINVAL", "kernel", vfio_device.device_get_info, device)
        refused(ATTACH, "EINVAL", "kernel", vfio_cdev.device_attach_iommufd_pt, device, 1)
        refused(DETACH, "EINVAL", "kernel", vfio_cdev.device_detach_iommufd_pt, device)
        bind = vfio_cdev.device_bind_iommufd
        refused(BIND, "EBADF", "kernel", bind, device, NONE)
        refused(BIND, "EBADFD", "kernel", bind, device, other)
        refused(BIND, "EINVAL", "kernel", bind, device, iommu, UUID(int=1))
        group = vfio.group_path(group_of(roles["edu"]))
        with vfio.opened(group):
            refused(BIND, "EBUSY", "group-busy", bind, device, iommu)
        number = bind(device, iommu)
        refused(BIND, "EINVAL", "kernel", bind, device, iommu)
        refused("open", "EBUSY", "group-busy", open_node, group)
        refused("IOMMU_DESTROY", "EBUSY", "object-busy", iommufd.destroy, iommu, number)
        with vfio.opened(node_of(roles["edu"])) as second:
            holder = State(device=roles["edu"], holders=("qemu (42)",))
            refused(BIND, "EINVAL", "device-busy", bind, second, iommu, state=holder)


def test_a_device_of_a_group_that_is_not_viable(iommu: int, roles: Roles) -> None:
    need_driver("e1000")
    if driver_of(roles["mf1"]) is None:
        probe(roles["mf1"])
    assert driver_of(roles["mf1"]) == "e1000"
    try:
        with vfio.opened(node_of(roles["mf0"])) as device:
            blocked = State(viable=False, blocking=((roles["mf1"], "e1000"),))
            refused(BIND, "EPERM", "not-viable", vfio_cdev.device_bind_iommufd, device, iommu, state=blocked)
        # With an iommufd as its container the group is let in, and its devices are refused.
        with vfio.opened(vfio.group_path(group_of(roles["mf0"]))) as group:
            vfio.group_set_container(group, iommu)
            vfio.set_iommu(iommu, container_uapi.VFIO_TYPE1v2_IOMMU)
            call, open_device = "VFIO_GROUP_GET_DEVICE_FD", vfio.group_get_device_fd
            refused(call, "EPERM", "not-viable", open_device, group, roles["mf0"], state=blocked)
            vfio.group_unset_container(group)
    finally:
        unbind(roles["mf1"])


def test_a_virtual_function_takes_a_token(iommu: int, roles: Roles) -> None:
    function, token = roles["nvme"], UUID("00112233-4455-6677-8899-aabbccddeeff")
    Path("/sys/module/vfio_pci/parameters/enable_sriov").write_text("Y")
    give(function, "vfio-pci")
    numvfs = PCI / function / "sriov_numvfs"
    try:
        (PCI / function / "sriov_drivers_autoprobe").write_text("0")
        # Binding it resets it, and with it virtual functions that are there already.
        with bound(function, iommu) as (device, _):
            numvfs.write_text("1")
            try:
                virtual = os.readlink(PCI / function / "virtfn0").rpartition("/")[2]
                give(virtual, "vfio-pci")
                bind = vfio_cdev.device_bind_iommufd
                with vfio.opened(node_of(virtual)) as other:
                    if not newer():
                        # Up to 6.16 nobody asks for a token here, only where a device is opened through its group.
                        assert bind(other, iommu) > 0
                        return
                    refused(BIND, "EACCES", "permission", bind, other, iommu)
                    refused(BIND, "EACCES", "permission", bind, other, iommu, UUID(int=1))
                    vfio_features.device_vf_token(device, token)
                    assert bind(other, iommu, token) > 0
            finally:
                numvfs.write_text("0")
    finally:
        (PCI / function / "sriov_drivers_autoprobe").write_text("1")
        take_back(function)
        Path("/sys/module/vfio_pci/parameters/enable_sriov").write_text("N")


def test_attaching(iommu: int, roles: Roles, buffer: Memory) -> None:
    attach, here = vfio_cdev.device_attach_iommufd_pt, buffer.address
    with bound(roles["edu"], iommu) as (device, number):
        refused(ATTACH, "ENOENT", "no-such-object", attach, device, NONE)
        ioas = iommufd.ioas_alloc(iommu)
        iommufd.ioas_map(iommu, ioas, here, PAGE, RW, HOLE)
        refused(ATTACH, "EADDRINUSE", "iova-reserved", attach, device, ioas)
        iommufd.ioas_unmap_all(iommu, ioas)
        iommufd.ioas_map(iommu, ioas, PAGE, PAGE, RW, MIB)
        refused(ATTACH, "EFAULT", "memory-not-pinnable", attach, device, ioas)
        iommufd.ioas_unmap_all(iommu, ioas)
        refused(ATTACH, "EINVAL EOPNOTSUPP", "kernel not-supported", attach, device, ioas, 1)
        attach(device, ioas)
        ranges = iommufd.ioas_iova_ranges(iommu, ioas)
        assert ranges.alignment == PAGE
        assert not any(start <= HOLE <= last for start, last in ranges.ranges)
        call = "IOMMU_IOAS_MAP"
        refused(call, "EINVAL", "iova-out-of-range", iommufd.ioas_map, iommu, ioas, here, PAGE, RW, HOLE)
        refused(call, "EFAULT", "memory-not-pinnable", iommufd.ioas_map, iommu, ioas, PAGE, PAGE, RW, MIB)
        call = "IOMMU_IOAS_ALLOW_IOVAS"
        wanted = [(HOLE, HOLE + PAGE)]
        refused(call, "EADDRINUSE", "iova-reserved", iommufd.ioas_allow_iovas, iommu, ioas, wanted)
        refused("IOMMU_DESTROY", "EBUSY", "object-busy", iommufd.destroy, iommu, ioas)
        vfio_cdev.device_detach_iommufd_pt(device)
        vfio_cdev.device_detach_iommufd_pt(device)
        iommufd.destroy(iommu, ioas)
        assert number


def test_locked_memory(iommu: int, roles: Roles, buffer: Memory) -> None:
    attach, limit = vfio_cdev.device_attach_iommufd_pt, 4 * PAGE
    state = State(size=16 * PAGE, memlock_limit=limit, memlock_locked=0, per_user=True)
    with bound(roles["edu"], iommu) as (device, _):

        def child() -> None:
            with make(size=16 * PAGE) as memory:
                early, late = iommufd.ioas_alloc(iommu), iommufd.ioas_alloc(iommu)
                iommufd.ioas_map(iommu, early, memory.address, memory.size, RW, MIB)
                refused(ATTACH, "ENOMEM", "memlock", attach, device, early, state=state)
                attach(device, late)
                arguments = (iommu, late, memory.address, memory.size, RW, MIB)
                refused("IOMMU_IOAS_MAP", "ENOMEM", "memlock", iommufd.ioas_map, *arguments, state=state)

        assert as_nobody(child, limit)


def test_page_tables(iommu: int, roles: Roles, buffer: Memory) -> None:
    refused("IOMMU_GET_HW_INFO", "ENOENT", "no-such-object", iommufd_hw.get_hw_info, iommu, NONE)
    with bound(roles["edu"], iommu) as (device, number):
        info = iommufd_hw.get_hw_info(iommu, number)
        assert info.type == uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD
        assert info.registers["cap_reg"] and info.registers["ecap_reg"]
        assert not info.capabilities & uapi.IOMMU_HW_CAP_DIRTY_TRACKING
        ioas = iommufd.ioas_alloc(iommu)
        call, alloc = "IOMMU_HWPT_ALLOC", iommufd_hw.hwpt_alloc
        tracking = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING
        refused(call, "EOPNOTSUPP", "not-supported", alloc, iommu, number, ioas, tracking)
        refused(call, "EINVAL ENOENT", "no-such-object", alloc, iommu, number, NONE)
        refused(call, "ENOENT", "no-such-object", alloc, iommu, NONE, ioas)
        iommufd.ioas_map(iommu, ioas, PAGE, PAGE, RW, MIB)
        refused(call, "EFAULT", "memory-not-pinnable", alloc, iommu, number, ioas)
        iommufd.ioas_unmap_all(iommu, ioas)
        table = alloc(iommu, number, ioas)
        assert vfio_cdev.device_attach_iommufd_pt(device, table) == table
        refused("IOMMU_DESTROY", "EBUSY", "object-busy", iommufd.destroy, iommu, table)
        iommufd.ioas_map(iommu, ioas, buffer.address, 4 * PAGE, RW, MIB)
        call = "IOMMU_HWPT_SET_DIRTY_TRACKING"
        refused(call, "EOPNOTSUPP", "not-supported", iommufd_hw.hwpt_set_dirty_tracking, iommu, table, True)
        refused(call, "ENOENT", "no-such-object", iommufd_hw.hwpt_set_dirty_tracking, iommu, NONE, True)
        call, get = "IOMMU_HWPT_GET_DIRTY_BITMAP", iommufd_hw.hwpt_get_dirty_bitmap
        refused(call, "EOPNOTSUPP", "not-supported", get, iommu, table, MIB, 4 * PAGE, PAGE)
        refused(call, "ENOENT", "no-such-object", get, iommu, NONE, MIB, 4 * PAGE, PAGE)


def test_hot_resets(iommu: int, roles: Roles) -> None:
    call = "VFIO_DEVICE_PCI_HOT_RESET"
    with bound(roles["nic_a"], iommu) as (device, number):
        info = vfio_reset.device_get_pci_hot_reset_info(device)
        assert info == (((roles["nic_a"], None, number, True),), True)
        refused(call, "EINVAL", "reset-scope", vfio_reset.device_pci_hot_reset, device, [iommu])
        vfio_reset.device_pci_hot_reset(device)
    assert driver_of(roles["mf1"]) is None
    with bound(roles["mf0"], iommu) as (device, number):
        info = vfio_reset.device_get_pci_hot_reset_info(device)
        # The function without a driver may be taken by another one, although the iommufd owns its group.
        assert {(each.address, each.devid) for each in info.devices} == {
            (roles["mf0"], number),
            (roles["mf1"], None),
        }
        assert info.owned is False
        refused(call, "EINVAL", "reset-scope", vfio_reset.device_pci_hot_reset, device)


def test_an_iommufd_as_a_container(iommu: int, roles: Roles, buffer: Memory) -> None:
    with vfio.opened(vfio.group_path(group_of(roles["edu"]))) as group:
        vfio.group_set_container(group, iommu)
        refused(
            "VFIO_SET_IOMMU", "EINVAL", "kernel", vfio.set_iommu, iommu, container_uapi.VFIO_SPAPR_TCE_IOMMU
        )
        vfio.set_iommu(iommu, container_uapi.VFIO_TYPE1v2_IOMMU)
        device = vfio.group_get_device_fd(group, roles["edu"])
        try:
            vfio.iommu_map_dma(iommu, buffer.address, MIB, 4 * PAGE, 3)
            call = "VFIO_IOMMU_UNMAP_DMA"
            refused(call, "ENOENT", "unmap-partial", vfio.iommu_unmap_dma, iommu, MIB, PAGE)
            assert vfio.iommu_unmap_dma(iommu, 4 * MIB, PAGE) == 0
            start = vfio_dirty.iommu_dirty_pages_start
            refused("VFIO_IOMMU_DIRTY_PAGES", "ENOTTY", "not-supported", start, iommu)
            refused(ATTACH, "ENOTTY", "not-supported", vfio_cdev.device_attach_iommufd_pt, device, 1)
            assert iommufd.vfio_ioas_get(iommu) > 0
        finally:
            os.close(device)
            vfio.group_unset_container(group)


@pytest.mark.machine("no-intremap")
@pytest.mark.kernels("6.12-iommufd")
def test_interrupts_that_are_not_isolated(iommu: int, roles: Roles) -> None:
    unsafe = State(viable=True, interrupts_isolated=False)
    code = "interrupts-not-isolated"
    with vfio.opened(node_of(roles["edu"])) as device:
        error = refused(BIND, "EPERM", code, vfio_cdev.device_bind_iommufd, device, iommu, state=unsafe)
        assert "/sys/module/iommufd/parameters/allow_unsafe_interrupts" in (error.hint or "")
    parameter = Path("/sys/module/iommufd/parameters/allow_unsafe_interrupts")
    parameter.write_text("Y")
    try:
        with bound(roles["edu"], iommu):
            pass
    finally:
        parameter.write_text("N")


@pytest.mark.machine("rmrr")
@pytest.mark.kernels("6.12-iommufd")
def test_memory_that_the_firmware_wants_mapped(iommu: int, roles: Roles) -> None:
    direct = State(viable=True, direct_region=True)
    with vfio.opened(node_of(roles["edu"])) as device:
        refused(BIND, "EINVAL", "direct-region", vfio_cdev.device_bind_iommufd, device, iommu, state=direct)


@pytest.mark.machine("no-iommu")
@pytest.mark.kernels("6.12-iommufd")
def test_a_group_without_an_iommu(vfio_pci: Path, roles: Roles, buffer: Memory) -> None:
    mode = Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    mode.write_text("Y")
    give(roles["edu"], "vfio-pci")
    number = group_of(roles["edu"])
    state = State(group=number, noiommu=True)
    path = vfio.group_path(f"noiommu-{number}")
    try:
        os.chmod(path, 0o666)
        assert as_nobody(lambda: refused("open", "EPERM", "permission", open_node, path, state=state), PAGE)
        with vfio.opened(vfio.container_path()) as container, vfio.opened(path) as group:
            call, join = "VFIO_GROUP_SET_CONTAINER", vfio.group_set_container
            assert as_nobody(
                lambda: refused(call, "EPERM", "permission", join, group, container, state=state), PAGE
            )
            vfio.group_set_container(group, container)
            call, kind = "VFIO_SET_IOMMU", container_uapi.VFIO_TYPE1v2_IOMMU
            refused(call, "ENODEV", "no-iommu", vfio.set_iommu, container, kind, state=state)
            vfio.set_iommu(container, container_uapi.VFIO_NOIOMMU_IOMMU)
            refused("VFIO_IOMMU_GET_INFO", "ENOTTY", "no-iommu", vfio.iommu_get_info, container, state=state)
            mapping = (container, buffer.address, MIB, PAGE, 3)
            refused("VFIO_IOMMU_MAP_DMA", "ENOTTY", "no-iommu", vfio.iommu_map_dma, *mapping, state=state)
            call = "VFIO_IOMMU_UNMAP_DMA"
            refused(call, "ENOTTY", "no-iommu", vfio.iommu_unmap_dma, container, MIB, PAGE, state=state)
    finally:
        take_back(roles["edu"])
        mode.write_text("N")
