"""ppc64le: a partition (pseries) with one group per host bridge and sPAPR containers of both versions; a machine
without hypervisor (powernv) with EEH; and Linux 6.1, whose vfio-pci takes no device there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.edu.edu import Edu
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of, override_of
from vfioctl.host import spapr, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import make
from vfioctl.uapi import spapr as uapi
from vfioctl.uapi.vfio import (
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_EEH,
    VFIO_SPAPR_TCE_IOMMU,
    VFIO_TYPE1_IOMMU,
    VFIO_SPAPR_TCE_v2_IOMMU,
)

Roles = Mapping[str, str]
PSERIES = pytest.mark.machine("pseries")
POWERNV = pytest.mark.machine("powernv")
RW = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
PAGE = 4096
GIB = 1 << 30
OTHER_WINDOW = 1 << 59


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Roles) -> Iterator[Roles]:
    """The roles, both devices bound."""
    assert vfioctl("bind", roles["edu"], roles["nic_a"]).status == 0
    yield roles
    assert vfioctl("unbind", roles["edu"], roles["nic_a"]).status == 0


@contextmanager
def container_of(kind: int, *addresses: str) -> Iterator[tuple[int, int]]:
    """A container of an IOMMU type, and the descriptor of the first of its groups."""
    with ExitStack() as stack:
        container = stack.enter_context(vfio.opened(vfio.container_path()))
        groups = [stack.enter_context(vfio.opened(vfio.group_path(group_of(a)))) for a in addresses]
        vfio.group_set_container(groups[0], container)
        vfio.set_iommu(container, kind)
        for group in groups[1:]:
            vfio.group_set_container(group, container)
        yield container, groups[0]


def refused(call: Callable[..., object], *arguments: int) -> str:
    """The name of the errno that a call ends with."""
    with pytest.raises(CallError) as caught:
        call(*arguments)
    return errno.errorcode[caught.value.errno or 0]


def name_of(address: str) -> str:
    return (PCI / address / "iommu_group/name").read_text().strip()


@PSERIES
def test_groups_of_a_partition(vfioctl: Vfioctl, roles: Roles) -> None:
    edu = roles["edu"]
    assert os.uname().machine == "ppc64le"
    assert (edu, name_of(edu)) == ("0001:00:01.0", "domain1-pe0")
    groups = vfioctl("list-groups", "-J").json["groups"]
    (group,) = (group for group in groups if group["id"] == group_of(edu))
    assert (group["name"], group["type"]) == ("domain1-pe0", "unknown")
    assert (group["viable"], group["reserved_regions"]) == (True, [])
    checked = vfioctl("check-viable", edu, "-J").json["results"][0]
    assert [problem["code"] for problem in checked["problems"]] == ["no-vfio-member"]


@PSERIES
def test_bind_and_unbind(vfioctl: Vfioctl, roles: Roles) -> None:
    edu, nic = roles["edu"], roles["nic_a"]
    done = vfioctl("bind", edu, nic, "--user", "nobody", "-J")
    assert done.status == 0, done.stderr
    assert [device["driver"] for device in done.json["devices"]] == ["vfio-pci", "vfio-pci"]
    assert {device["node"]["uid"] for device in done.json["devices"]} == {65534}
    assert Path("/sys/module/vfio_iommu_spapr_tce").exists()
    assert vfioctl("check-viable", edu, "--live", "--usable").status == 0
    assert vfioctl("show", edu, "-P", "iommu", "--value").stdout == "iommu-phb0001\n"
    extensions = vfioctl("iommu-info", edu, "-J").json["extensions"]
    assert extensions["VFIO_SPAPR_TCE_IOMMU"] is extensions["VFIO_SPAPR_TCE_v2_IOMMU"] is True
    assert extensions["VFIO_TYPE1v2_IOMMU"] is extensions["VFIO_EEH"] is False
    other = vfioctl("map", edu, "--backend", "type1v2", "-J")
    assert (other.status, other.json_error["code"]) == (7, "no-iommu-backend")
    assert "vfio_iommu_spapr_tce" in other.json_error["hint"]
    assert vfioctl("unbind", edu, nic).status == 0
    assert (driver_of(edu), override_of(edu)) == (None, None)


@PSERIES
def test_spapr_v1(bound: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_IOMMU, bound["edu"]) as (container, _), make(size=PAGE) as memory:
        assert not vfio.check_extension(container, VFIO_TYPE1_IOMMU)
        assert spapr.tce_get_info(container) == (0, GIB, None)
        assert refused(vfio.iommu_map_dma, container, memory.address, 0, PAGE, RW) == "EPERM"
        spapr.enable(container)
        assert refused(spapr.enable, container) == "EBUSY"
        vfio.iommu_map_dma(container, memory.address, 0x100000, PAGE, RW)
        assert refused(vfio.iommu_map_dma, container, memory.address, GIB, PAGE, RW) == "ENXIO"
        assert refused(spapr.register_memory, container, memory.address, PAGE) == "ENOTTY"
        assert refused(spapr.tce_create, container, 12, 1 << 20) == "ENOTTY"
        spapr.disable(container)
        with vfio.opened(vfio.group_path(group_of(bound["nic_a"]))) as other:
            assert refused(vfio.group_set_container, other, container) == "EBUSY"


@PSERIES
def test_spapr_v2(bound: Roles) -> None:
    with (
        container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"]) as (container, _),
        make(size=PAGE) as memory,
    ):
        info = spapr.tce_get_info(container)
        assert info[:2] == (0, GIB)
        assert info.dynamic is not None
        assert (info.dynamic.page_sizes, info.dynamic.windows) == (0x1211000, 2)
        assert refused(spapr.enable, container) == "ENOTTY"
        assert refused(vfio.iommu_map_dma, container, memory.address, 0, PAGE, RW) == "EPERM"
        spapr.register_memory(container, memory.address, PAGE)
        assert refused(spapr.register_memory, container, memory.address, PAGE) == "EBUSY"
        assert refused(spapr.unregister_memory, container, memory.address + PAGE, PAGE) == "ENOENT"
        assert spapr.tce_create(container, 12, GIB) == OTHER_WINDOW
        assert refused(spapr.tce_create, container, 12, GIB) == "ENOSPC"
        vfio.iommu_map_dma(container, memory.address, OTHER_WINDOW, PAGE, RW)
        vfio.iommu_unmap_dma(container, OTHER_WINDOW, PAGE)
        spapr.tce_remove(container, OTHER_WINDOW)
        assert refused(spapr.tce_remove, container, OTHER_WINDOW) == "EINVAL"
        spapr.unregister_memory(container, memory.address, PAGE)


@PSERIES
def test_groups_of_a_partition_do_not_share_a_container(bound: Roles) -> None:
    """A table of one host bridge is no table of another (arch/powerpc/platforms/pseries/iommu.c,
    spapr_tce_set_window): the groups come together as long as there is no window, and then none can be made."""
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"], bound["nic_a"]) as (container, _):
        with make(size=PAGE) as memory:
            spapr.register_memory(container, memory.address, PAGE)
            assert refused(vfio.iommu_map_dma, container, memory.address, 0, PAGE, RW) == "EPERM"
            spapr.unregister_memory(container, memory.address, PAGE)
        assert refused(spapr.tce_create, container, 12, GIB) == "EPERM"
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"]) as (container, _):
        assert spapr.tce_create(container, 12, GIB) == OTHER_WINDOW
        with vfio.opened(vfio.group_path(group_of(bound["nic_a"]))) as other:
            assert refused(vfio.group_set_container, other, container) == "EPERM"


@PSERIES
def test_the_device_reaches_what_is_mapped_and_nothing_else(bound: Roles) -> None:
    with (
        container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"]) as (container, group),
        make(size=2 * PAGE) as memory,
    ):
        spapr.register_memory(container, memory.address, 2 * PAGE)
        vfio.iommu_map_dma(container, memory.address, 0x100000, 2 * PAGE, RW)
        pattern = os.urandom(PAGE)
        memory.write(0, pattern)
        device = vfio.group_get_device_fd(group, bound["edu"])
        try:
            edu = Edu(device)
            edu.dma_copy(0x100000, 0x100000 + PAGE, PAGE)
            assert memory.read(PAGE, PAGE) == pattern
            vfio.iommu_unmap_dma(container, 0x100000 + PAGE, PAGE)
            memory.write(0, bytes(PAGE))
            edu.dma_copy(0x100000, 0x100000 + PAGE, PAGE)
            assert memory.read(PAGE, PAGE) == pattern
        finally:
            os.close(device)
        vfio.iommu_unmap_dma(container, 0x100000, PAGE)
        spapr.unregister_memory(container, memory.address, 2 * PAGE)


@PSERIES
@pytest.mark.kernels("6.1")
@pytest.mark.parametrize("method", ["override", "new-id"])
def test_a_probe_that_fails_is_undone(vfioctl: Vfioctl, roles: Roles, method: str) -> None:
    """Linux 5.19 to 6.3 want a promise of coherent caches that POWER's IOMMU driver does not give before 6.4."""
    edu, nic = roles["edu"], roles["nic_a"]
    before = [(driver_of(address), override_of(address)) for address in (edu, nic)]
    result = vfioctl("bind", nic, edu, "--method", method, "-J")
    assert result.status == 8, result
    assert result.stdout == ""
    error = result.json_error
    assert (error["errno"], error["subject"]) == ("EINVAL", edu)
    assert "coherent" in error["message"]
    assert [(driver_of(address), override_of(address)) for address in (edu, nic)] == before
    assert not Path(f"/dev/vfio/{group_of(edu)}").exists()
    assert vfioctl("check-viable", edu, "--usable").status == 1


@POWERNV
def test_groups_of_endpoints(vfioctl: Vfioctl, roles: Roles) -> None:
    edu = roles["edu"]
    assert name_of(edu).startswith("domain0-pe")
    port = (PCI / edu).resolve().parent.name
    assert not (PCI / port / "iommu_group").exists()
    (record,) = vfioctl("list-devices", port, "-J").json["devices"]
    assert (record["class"], record["group"]) == ("060400", None)
    refusal = vfioctl("bind", port, "-J")
    assert (refusal.status, refusal.json_error["code"]) == (5, "bridge"), refusal
    checked = vfioctl("check-viable", edu, roles["nic_a"], "-J").json["results"]
    assert [(result["viable"], result["usable"]) for result in checked] == [(True, False)] * 2


@POWERNV
def test_eeh(bound: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"]) as (container, group):
        assert vfio.check_extension(container, VFIO_EEH)
        assert spapr.tce_get_info(container).window_size == 2 * GIB
        device = vfio.group_get_device_fd(group, bound["edu"])
        try:
            assert spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_ENABLE) == 0
            state = spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_GET_STATE)
            assert state == uapi.VFIO_EEH_PE_STATE_NORMAL
            assert spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_CONFIGURE) == 0
            assert spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_UNFREEZE_IO) == 0
            spapr.eeh_inject_error(container, 0, 4)
            assert refused(spapr.eeh_inject_error, container, 0, 0) == "EIO"
            assert refused(spapr.eeh_pe_op, container, 77) == "EINVAL"
            assert spapr.eeh_pe_op(container, uapi.VFIO_EEH_PE_DISABLE) == 0
        finally:
            os.close(device)


@PSERIES
def test_no_eeh_in_an_emulated_partition(bound: Roles) -> None:
    with container_of(VFIO_SPAPR_TCE_v2_IOMMU, bound["edu"]) as (container, _):
        assert refused(spapr.eeh_pe_op, container, uapi.VFIO_EEH_PE_ENABLE) == "ENODEV"
