"""What the kernel refuses of groups, type1 containers and devices: with which errno, and what vfioctl says of it.

Refusals to map are in test_dma_backend.py and the contract of tests/ops; those of iommufd in test_errnos_iommufd.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from tests.kernel.guest.refused import refused
from tests.kernel.guest.sysfs import PCI, driver_of, give, group_of, take_back
from vfioctl.host import (
    iommufd,
    spapr,
    vfio,
    vfio_cdev,
    vfio_device,
    vfio_dirty,
    vfio_features,
    vfio_irqs,
    vfio_reset,
)
from vfioctl.host.ioctl import Refused, open_node
from vfioctl.host.memory import Memory, make
from vfioctl.policy.refusals import State
from vfioctl.uapi import feature
from vfioctl.uapi import spapr as eeh
from vfioctl.uapi import vfio as uapi

Roles = Mapping[str, str]

PAGE = 4096
MIB = 1 << 20
READ = uapi.VFIO_DMA_MAP_FLAG_READ
WRITE = uapi.VFIO_DMA_MAP_FLAG_WRITE
NOT_OPEN = 9999
TYPE1 = Path("/sys/module/vfio_iommu_type1/parameters")
ENABLE_SRIOV = Path("/sys/module/vfio_pci/parameters/enable_sriov")


@pytest.fixture(scope="module")
def lent(vfio_pci: Path, roles: Roles) -> Iterator[None]:
    """Devices of three groups on vfio-pci; of the group of ``mf0`` the other function is not."""
    addresses = [roles[role] for role in ("edu", "nic_a", "mf0")]
    for address in addresses:
        give(address, "vfio-pci")
    yield
    for address in addresses:
        take_back(address)


@contextmanager
def in_container(
    *groups: int, iommu: int | None = uapi.VFIO_TYPE1v2_IOMMU
) -> Iterator[tuple[int, list[int]]]:
    """A container with an IOMMU and groups in it, while the block runs."""
    with ExitStack() as stack:
        container = stack.enter_context(vfio.opened(vfio.container_path()))
        members = [stack.enter_context(vfio.opened(vfio.group_path(group))) for group in groups]
        for member in members:
            vfio.group_set_container(member, container)
        if iommu is not None:
            vfio.set_iommu(container, iommu)
        yield container, members


@contextmanager
def open_device(address: str) -> Iterator[tuple[int, int]]:
    """A device in a container and its group, while the block runs."""
    with in_container(group_of(address)) as (_, (group,)):
        device = vfio.group_get_device_fd(group, address)
        try:
            yield device, group
        finally:
            os.close(device)


@pytest.fixture
def buffer() -> Iterator[Memory]:
    with make(size=16 * PAGE) as memory:
        yield memory


@pytest.mark.usefixtures("lent")
def test_nodes_that_are_not_there(roles: Roles) -> None:
    free = vfio.group_path(group_of(roles["vga"]))
    refused("open", "ENOENT", "no-vfio-member", open_node, free, state=State(group=group_of(roles["vga"])))
    refused("open", "ENOENT", "no-iommufd", open_node, iommufd.iommufd_path())
    refused("open", "ENOENT", "no-device-node", open_node, vfio_cdev.device_path("vfio0"))


@pytest.mark.usefixtures("lent")
def test_containers_and_groups(roles: Roles) -> None:
    number = group_of(roles["edu"])
    with in_container(number, iommu=None) as (container, (group,)):
        refused("VFIO_IOMMU_GET_INFO", "EINVAL", "no-iommu", vfio.iommu_get_info, container)
        refused("VFIO_GROUP_GET_DEVICE_FD", "EINVAL", "kernel", vfio.group_get_device_fd, group, roles["edu"])
        refused(
            "VFIO_SET_IOMMU",
            "ENODEV",
            "no-iommu-backend",
            vfio.set_iommu,
            container,
            uapi.VFIO_SPAPR_TCE_v2_IOMMU,
        )
        vfio.group_unset_container(group)
        refused("VFIO_GROUP_UNSET_CONTAINER", "EINVAL", "kernel", vfio.group_unset_container, group)
        refused("VFIO_SET_IOMMU", "EINVAL", "kernel", vfio.set_iommu, container, uapi.VFIO_TYPE1v2_IOMMU)
        refused("VFIO_GROUP_SET_CONTAINER", "EBADF", "kernel", vfio.group_set_container, group, NOT_OPEN)
        with vfio.opened("/dev/null") as other:
            # Up to 6.1 the kernel says EINVAL.
            refused(
                "VFIO_GROUP_SET_CONTAINER", "EBADFD EINVAL", "kernel", vfio.group_set_container, group, other
            )
        vfio.group_set_container(group, container)
        refused(
            "VFIO_GROUP_SET_CONTAINER",
            "EINVAL",
            "group-busy",
            vfio.group_set_container,
            group,
            container,
            state=State(container_set=True),
        )
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        refused("VFIO_SET_IOMMU", "EINVAL", "kernel", vfio.set_iommu, container, uapi.VFIO_TYPE1v2_IOMMU)
        refused(
            "VFIO_GROUP_GET_DEVICE_FD", "ENODEV", "not-found", vfio.group_get_device_fd, group, roles["nic_a"]
        )
        for options in ("junk", "vf_token=short", "vf_token=00112233-4455-6677-8899-aabbccddeeff"):
            refused(
                "VFIO_GROUP_GET_DEVICE_FD",
                "EINVAL",
                "kernel",
                vfio.group_get_device_fd,
                group,
                f"{roles['edu']} {options}",
            )


@pytest.mark.usefixtures("lent")
def test_calls_that_only_other_backends_have(roles: Roles) -> None:
    with in_container(group_of(roles["edu"])) as (container, (group,)):
        refused("VFIO_IOMMU_ENABLE", "ENOTTY", "not-supported", spapr.enable, container)
        refused("VFIO_IOMMU_DISABLE", "ENOTTY", "not-supported", spapr.disable, container)
        refused(
            "VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY",
            "ENOTTY",
            "not-supported",
            spapr.unregister_memory,
            container,
            0,
            PAGE,
        )
        refused(
            "VFIO_IOMMU_SPAPR_TCE_CREATE", "ENOTTY", "not-supported", spapr.tce_create, container, 12, MIB
        )
        refused("VFIO_IOMMU_SPAPR_TCE_REMOVE", "ENOTTY", "not-supported", spapr.tce_remove, container, 0)
        refused("VFIO_EEH_PE_OP", "ENOTTY", "no-eeh", spapr.eeh_pe_op, container, eeh.VFIO_EEH_PE_GET_STATE)
        refused("IOMMU_IOAS_ALLOC", "ENOTTY", "no-iommufd", iommufd.ioas_alloc, container)
        device = vfio.group_get_device_fd(group, roles["edu"])
        try:
            refused(
                "VFIO_DEVICE_BIND_IOMMUFD",
                "ENOTTY",
                "no-device-node",
                vfio_cdev.device_bind_iommufd,
                device,
                container,
            )
            refused(
                "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
                "ENOTTY",
                "not-supported",
                vfio_cdev.device_attach_iommufd_pt,
                device,
                1,
            )
            refused(
                "VFIO_DEVICE_DETACH_IOMMUFD_PT",
                "ENOTTY",
                "not-supported",
                vfio_cdev.device_detach_iommufd_pt,
                device,
            )
        finally:
            os.close(device)


@pytest.mark.usefixtures("lent")
def test_mappings(roles: Roles, buffer: Memory) -> None:
    call = "VFIO_IOMMU_MAP_DMA"
    with in_container(group_of(roles["edu"])) as (container, _):
        wraps = 2**64 - PAGE
        refused(
            call,
            "EOVERFLOW EINVAL",
            "iova-out-of-range",
            vfio.iommu_map_dma,
            container,
            buffer.address,
            wraps,
            2 * PAGE,
            READ,
        )
        refused(
            call,
            "ENOENT",
            "kernel",
            vfio.iommu_map_dma,
            container,
            buffer.address,
            MIB,
            PAGE,
            uapi.VFIO_DMA_MAP_FLAG_VADDR,
        )
        vfio.iommu_map_dma(container, buffer.address, MIB, 4 * PAGE, READ | WRITE)
        refused(
            call, "EEXIST", "mapping-overlap", vfio.iommu_map_dma, container, buffer.address, MIB, PAGE, READ
        )
        refused("VFIO_IOMMU_UNMAP_DMA", "EINVAL", "unmap-partial", vfio.iommu_unmap_dma, container, MIB, PAGE)
        refused(
            "VFIO_IOMMU_UNMAP_DMA",
            "EOVERFLOW EINVAL",
            "iova-out-of-range" if os.uname().release.startswith("7.") else "unmap-partial",
            vfio.iommu_unmap_dma,
            container,
            wraps,
            2 * PAGE,
        )
        wanted = [(buffer.address, 2 * MIB + at * PAGE, PAGE) for at in (0, 1, 2, 2)]
        refused(call, "EEXIST", "mapping-overlap", vfio.iommu_map_dma_each, container, wanted, READ)
        with pytest.raises(Refused) as caught:
            vfio.iommu_map_dma_each(container, wanted[3:], READ)
        assert caught.value.item == wanted[3]
        assert vfio.iommu_unmap_all(container) == 7 * PAGE
        assert vfio.iommu_unmap_all(container) == 0


@pytest.mark.usefixtures("lent")
def test_dirty_pages(roles: Roles, buffer: Memory) -> None:
    call = "VFIO_IOMMU_DIRTY_PAGES"
    with in_container(group_of(roles["edu"]), iommu=uapi.VFIO_TYPE1_IOMMU) as (container, _):
        refused(call, "EACCES", "not-supported", vfio_dirty.iommu_dirty_pages_start, container)
    with in_container(group_of(roles["edu"])) as (container, _):
        vfio.iommu_map_dma(container, buffer.address, MIB, 9 * PAGE, READ | WRITE)
        refused(
            call, "EINVAL", "dirty-pages", vfio_dirty.iommu_dirty_pages_get, container, MIB, 9 * PAGE, PAGE
        )
        vfio_dirty.iommu_dirty_pages_start(container)
        for iova, size, page in ((MIB, PAGE, PAGE), (MIB, 9 * PAGE, 2 * MIB), (MIB + 1, 9 * PAGE, PAGE)):
            refused(
                call, "EINVAL", "dirty-pages", vfio_dirty.iommu_dirty_pages_get, container, iova, size, page
            )
        assert vfio_dirty.iommu_dirty_pages_get(container, MIB, 9 * PAGE, PAGE) == b"\xff\x01" + bytes(6)
        vfio_dirty.iommu_dirty_pages_stop(container)


@pytest.mark.usefixtures("lent")
def test_regions_and_interrupts(roles: Roles) -> None:
    with open_device(roles["nic_a"]) as (device, _):
        for index in (99, uapi.VFIO_PCI_VGA_REGION_INDEX):
            refused(
                "VFIO_DEVICE_GET_REGION_INFO",
                "EINVAL",
                "not-found",
                vfio_device.device_get_region_info,
                device,
                index,
            )
        refused("VFIO_DEVICE_GET_IRQ_INFO", "EINVAL", "not-found", vfio_irqs.device_get_irq_info, device, 99)
        call = "VFIO_DEVICE_SET_IRQS"
        msix, intx = uapi.VFIO_PCI_MSIX_IRQ_INDEX, uapi.VFIO_PCI_INTX_IRQ_INDEX
        event = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            refused(call, "EINVAL", "irq-invalid", vfio_irqs.device_set_irqs, device, msix, 99, [event])
            refused(call, "EINVAL", "irq-invalid", vfio_irqs.device_trigger_irq, device, intx)
            refused(call, "EBADF", "irq-invalid", vfio_irqs.device_set_irqs, device, msix, 0, [NOT_OPEN])
            vfio_irqs.device_set_irqs(device, msix, 0, [event])
            refused(call, "EINVAL", "irq-invalid", vfio_irqs.device_set_irqs, device, intx, 0, [event])
            refused(call, "ENOTTY", "not-supported", vfio_irqs.device_mask_irq, device, msix)
            vfio_irqs.device_disable_irqs(device, msix)
            vfio_irqs.device_set_irqs(device, intx, 0, [event])
            vfio_irqs.device_mask_irq(device, intx)
            vfio_irqs.device_unmask_irq(device, intx)
            vfio_irqs.device_disable_irqs(device, intx)
        finally:
            os.close(event)


@pytest.mark.usefixtures("lent")
def test_features(roles: Roles) -> None:
    call = "VFIO_DEVICE_FEATURE"
    get, put = feature.VFIO_DEVICE_FEATURE_GET, feature.VFIO_DEVICE_FEATURE_SET
    with open_device(roles["nic_a"]) as (device, _):
        assert not vfio_features.device_feature_probe(device, feature.VFIO_DEVICE_FEATURE_MIGRATION, get)
        assert vfio_features.device_feature_probe(device, feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, put)
        assert not vfio_features.device_feature_probe(device, feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, get)
        refused(call, "ENOTTY", "not-supported", vfio_features.device_migration, device)
        refused(
            call,
            "EINVAL",
            "feature-invalid",
            vfio_features.device_feature_get,
            device,
            feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
            feature.vfio_device_feature_migration,
        )
        vfio_features.device_low_power_entry(device)
        refused(call, "EINVAL", "feature-invalid", vfio_features.device_low_power_entry, device)
        vfio_features.device_low_power_exit(device)


@pytest.mark.usefixtures("lent")
def test_resets(roles: Roles) -> None:
    with open_device(roles["edu"]) as (device, group):
        assert not vfio_device.device_get_info(device).flags & uapi.VFIO_DEVICE_FLAGS_RESET
        refused("VFIO_DEVICE_RESET", "EINVAL", "no-reset", vfio_reset.device_reset, device)
        refused(
            "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
            "ENODEV",
            "no-reset",
            vfio_reset.device_get_pci_hot_reset_info,
            device,
        )
        refused(
            "VFIO_DEVICE_PCI_HOT_RESET",
            "ENODEV",
            "no-reset",
            vfio_reset.device_pci_hot_reset,
            device,
            [group],
        )
    call = "VFIO_DEVICE_PCI_HOT_RESET"
    with open_device(roles["nic_a"]) as (device, group):
        assert vfio_device.device_get_info(device).flags & uapi.VFIO_DEVICE_FLAGS_RESET
        info = vfio_reset.device_get_pci_hot_reset_info(device)
        assert [each.address for each in info.devices] == [roles["nic_a"]]
        assert info.devices[0].group == group_of(roles["nic_a"])
        refused(call, "EINVAL", "reset-scope", vfio_reset.device_pci_hot_reset, device)
        refused(call, "EINVAL", "reset-scope", vfio_reset.device_pci_hot_reset, device, [device])
        refused(call, "EBADF", "reset-scope", vfio_reset.device_pci_hot_reset, device, [NOT_OPEN])
        vfio_reset.device_pci_hot_reset(device, [group])
        vfio_reset.device_reset(device)
        methods = PCI / roles["nic_a"] / "reset_method"
        before = methods.read_text()
        methods.write_text("\n")
        try:
            refused("VFIO_DEVICE_RESET", "ENOTTY", "no-reset", vfio_reset.device_reset, device)
        finally:
            methods.write_text("default")
        assert methods.read_text() == before
    with open_device(roles["mf0"]) as (device, group):
        assert driver_of(roles["mf1"]) is None
        info = vfio_reset.device_get_pci_hot_reset_info(device)
        assert {each.address for each in info.devices} == {roles["mf0"], roles["mf1"]}
        refused(call, "EINVAL", "reset-scope", vfio_reset.device_pci_hot_reset, device, [group])


def open_and_close(group: int, name: str) -> None:
    os.close(vfio.group_get_device_fd(group, name))


@contextmanager
def reset_over_and_over(address: str) -> Iterator[None]:
    """Somebody resets the device through sysfs, which takes its lock, while the block runs."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                (PCI / address / "reset").write_text("1")
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def until_refused(call: Callable[..., object], *arguments: object) -> None:
    """Calls until it is refused, for half a minute at most."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        call(*arguments)


@pytest.mark.usefixtures("lent")
def test_a_device_that_somebody_resets_is_locked(roles: Roles) -> None:
    """The kernel does not wait for the lock."""
    nic = roles["nic_a"]
    with in_container(group_of(nic)) as (_, (group,)), reset_over_and_over(nic):
        refused("VFIO_GROUP_GET_DEVICE_FD", "EAGAIN", "busy", until_refused, open_and_close, group, nic)
    with open_device(nic) as (device, _), reset_over_and_over(nic):
        refused("VFIO_DEVICE_RESET", "EAGAIN", "busy", until_refused, vfio_reset.device_reset, device)


def test_a_virtual_function_takes_a_token(vfio_pci: Path, roles: Roles) -> None:
    function = roles["nvme"]
    before = ENABLE_SRIOV.read_text().strip()
    ENABLE_SRIOV.write_text("Y")
    give(function, "vfio-pci")
    try:
        (PCI / function / "sriov_drivers_autoprobe").write_text("0")
        # Opening it resets it, and with it virtual functions that are there already.
        with open_device(function) as (device, _):
            numvfs = PCI / function / "sriov_numvfs"
            numvfs.write_text("1")
            try:
                token = UUID("00112233-4455-6677-8899-aabbccddeeff")
                take_a_token(os.readlink(PCI / function / "virtfn0").rpartition("/")[2], device, token)
            finally:
                numvfs.write_text("0")
    finally:
        (PCI / function / "sriov_drivers_autoprobe").write_text("1")
        take_back(function)
        ENABLE_SRIOV.write_text(before)


def take_a_token(virtual: str, physical: int, token: UUID) -> None:
    give(virtual, "vfio-pci")
    call = "VFIO_GROUP_GET_DEVICE_FD"
    with in_container(group_of(virtual)) as (_, (group,)):
        refused(call, "EACCES", "permission", open_and_close, group, virtual)
        wrong = f"{virtual} vf_token={UUID(int=1)}"
        refused(call, "EACCES", "permission", open_and_close, group, wrong)
        vfio_features.device_vf_token(physical, token)
        open_and_close(group, f"{virtual} vf_token={token}")
