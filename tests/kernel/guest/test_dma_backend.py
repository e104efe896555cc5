"""The ioctl backend, mapping and real DMA on a real kernel and a real IOMMU driver."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.edu import edu
from tests.edu.__main__ import main as edu_main
from tests.edu.proof import DESTINATION, SOURCE, UNMAPPED, prove
from tests.kernel.guest.sysfs import PCI, driver_of, give, group_of, take_back
from tests.kernel.testbed.kernel_log import KernelLog
from tests.ops import direct as dma
from tests.ops.contract import MIB, PAGE, RW, Contract
from tests.ops.direct import attached
from vfioctl.errors import KernelRefusal, No, VfioctlError
from vfioctl.host import memory, vfio, vfio_device, vfio_irqs
from vfioctl.host.ioctl import CallError
from vfioctl.host.memory import ANONYMOUS, make
from vfioctl.policy.refusals import State
from vfioctl.uapi import vfio as uapi

TYPE1 = Path("/sys/module/vfio_iommu_type1/parameters")
NOBODY = 65534


@pytest.fixture(scope="module")
def bound(vfio_pci: Path, roles: Mapping[str, str]) -> Iterator[Callable[[str], int]]:
    """Binds the device of a role to vfio-pci and returns its group; everything is taken back at the end."""
    given: list[str] = []

    def bind(role: str) -> int:
        address = roles[role]
        if address not in given:
            given.append(address)
            give(address, "vfio-pci")
        return group_of(address)

    yield bind
    for address in given:
        take_back(address)


@pytest.fixture(scope="module")
def groups(bound: Callable[[str], int]) -> list[int]:
    return [bound("edu"), bound("nic_a")]


@pytest.fixture(scope="module")
def dev(vfio_pci: Path) -> str:
    return str(vfio_pci.parent)


class TestContractOnLinux(Contract):
    """The same tests that the fake passes."""


def as_nobody(work: Callable[[], object], memlock: int) -> str:
    """Run ``work`` in a child process of user nobody with that limit of locked memory; what it returns, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "nothing"
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            answer = repr(work())
        except VfioctlError as error:
            answer = f"{type(error).__name__} {error.code} {error.errno_name}: {error.message}"
        except Exception:  # noqa: BLE001 - a child process tells whatever went wrong
            answer = traceback.format_exc()
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


@pytest.fixture
def permitted(groups: list[int]) -> Iterator[int]:
    """A group whose node belongs to nobody."""
    # Imported here, because user nobody may not be able to read the interpreter's files.
    with make(ANONYMOUS, PAGE):
        pass
    path = vfio.group_path(groups[0])
    os.chown(path, NOBODY, NOBODY)
    yield groups[0]
    os.chown(path, 0, 0)


def test_a_user_without_permission(groups: list[int]) -> None:
    state = State(group=groups[0], node_owner="root:root", node_mode="0600", user="nobody")
    answer = as_nobody(lambda: dma.map_dma(groups[:1], PAGE, states={groups[0]: state}), 8 * MIB)
    assert answer.startswith("PermissionDenied permission EACCES: user nobody may not open /dev/vfio/")
    assert answer.endswith("(owner root:root, mode 0600)")


def test_a_permitted_user_maps(permitted: int) -> None:
    assert as_nobody(lambda: dma.map_dma([permitted], 4 * MIB).mappings, 8 * MIB) == (
        "(MappingRecord(iova=0, size=4194304, prot='rw', source='anonymous'),)"
    )


@pytest.mark.parametrize("chunk", [None, MIB])
def test_the_limit_of_locked_memory_strikes_a_user(permitted: int, chunk: int | None) -> None:
    answer = as_nobody(lambda: dma.map_dma([permitted], 16 * MIB, chunk=chunk), 8 * MIB)
    assert answer.startswith("KernelRefusal memlock ENOMEM: ")
    assert "the limit is 8M" in answer
    assert dma.group_status(permitted).viable


def test_root_is_not_limited_but_charged(groups: list[int]) -> None:
    before = memory.memlock().locked
    charged: list[int] = []
    dma.map_dma(groups[:1], 16 * MIB, while_mapped=lambda report: charged.append(memory.memlock().locked))
    assert charged == [before + 16 * MIB]
    assert memory.memlock().locked == before


def test_the_entry_limit(groups: list[int]) -> None:
    limit = TYPE1 / "dma_entry_limit"
    before = limit.read_text()
    limit.write_text("2")
    try:
        with pytest.raises(KernelRefusal) as caught:
            dma.map_dma(groups[:1], 3 * MIB, chunk=MIB)
        assert caught.value.code == "no-entries-left"
        with attached(groups[:1]) as space, make(ANONYMOUS, PAGE) as buffer:
            assert space.info.dma_avail == 2
            for iova in (0, PAGE):
                vfio.iommu_map_dma(space.container, buffer.address, iova, PAGE, RW)
            with pytest.raises(CallError) as refused:
                vfio.iommu_map_dma(space.container, buffer.address, 2 * PAGE, PAGE, RW)
            assert refused.value.errno == errno.ENOSPC
    finally:
        limit.write_text(before)


def test_memory_that_is_not_there(groups: list[int]) -> None:
    with make(ANONYMOUS, 64 * MIB) as buffer:
        address = buffer.address
    with attached(groups[:1]) as space, pytest.raises(CallError) as caught:
        vfio.iommu_map_dma(space.container, address, 0, PAGE, RW)
    assert caught.value.errno == errno.EFAULT


def test_an_interrupt_while_mapped(groups: list[int]) -> None:
    before = memory.memlock().locked
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            dma.map_dma(groups[:1], MIB, while_mapped=lambda report: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert memory.memlock().locked == before
    assert dma.group_status(groups[0]) == (True, False)


def test_a_group_that_is_not_viable(bound: Callable[[str], int], roles: Mapping[str, str]) -> None:
    group = bound("mf0")
    assert os.spawnlp(os.P_WAIT, "modprobe", "modprobe", "e1000") == 0
    sibling = roles["mf1"]
    if driver_of(sibling) is None:
        Path("/sys/bus/pci/drivers_probe").write_text(sibling)
    assert (driver_of(sibling), group_of(sibling)) == ("e1000", group)
    assert dma.group_status(group) == (False, False)
    state = State(group=group, blocking=((sibling, "e1000"),))
    with pytest.raises(No) as caught:
        dma.map_dma([group], MIB, states={group: state})
    assert (caught.value.code, caught.value.errno_name) == ("not-viable", "EPERM")
    assert f"{sibling} (e1000)" in caught.value.message
    (PCI / sibling / "driver" / "unbind").write_text(sibling)
    assert dma.map_dma([group], MIB).groups == (group,)


def test_a_device_without_a_vfio_driver(roles: Mapping[str, str]) -> None:
    with pytest.raises(No) as caught:
        dma.group_status(group_of(roles["vga"]))
    assert (caught.value.code, caught.value.errno_name) == ("no-vfio-member", "ENOENT")


def test_a_device_has_to_be_in_the_group(groups: list[int], roles: Mapping[str, str]) -> None:
    with attached(groups[:1]) as space, pytest.raises(CallError) as caught:
        vfio.group_get_device_fd(space.groups[0], roles["nic_a"])
    assert (caught.value.call, caught.value.errno) == ("VFIO_GROUP_GET_DEVICE_FD", errno.ENODEV)


def test_device_info(groups: list[int], roles: Mapping[str, str]) -> None:
    with attached(groups[1:]) as space:
        device = vfio.group_get_device_fd(space.groups[0], roles["nic_a"])
        try:
            info = vfio_device.device_get_info(device)
            assert info.flags & uapi.VFIO_DEVICE_FLAGS_PCI
            assert info.num_regions >= uapi.VFIO_PCI_NUM_REGIONS
            assert info.num_irqs == uapi.VFIO_PCI_NUM_IRQS
            config = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_CONFIG_REGION_INDEX)
            assert os.pread(device, 2, config.offset) == b"\x86\x80"
            bar = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_BAR0_REGION_INDEX)
            assert bar.size == 128 * 1024 and bar.flags & uapi.VFIO_REGION_INFO_FLAG_MMAP
            msix = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_BAR3_REGION_INDEX)
            assert msix.msix_mappable
            assert vfio_irqs.device_get_irq_info(device, uapi.VFIO_PCI_MSIX_IRQ_INDEX).vectors == 5
            with pytest.raises(CallError) as caught:
                vfio_device.device_get_region_info(device, 999)
            assert (caught.value.call, caught.value.errno) == ("VFIO_DEVICE_GET_REGION_INFO", errno.EINVAL)
            with pytest.raises(CallError) as caught:
                vfio.group_unset_container(space.groups[0])
            assert caught.value.errno == errno.EBUSY
        finally:
            os.close(device)


def test_real_dma(groups: list[int], roles: Mapping[str, str], kernel_log: KernelLog) -> None:
    faults: list[str] = []
    wanted = [f"addr {iova:#x}" for iova in (UNMAPPED, DESTINATION)]
    for _ in range(4):
        verdicts = list(prove(groups[0], roles["edu"]))
        assert len(verdicts) == 6
        assert [verdict.text for verdict in verdicts if not verdict.passed] == []
        assert dma.group_status(groups[0]) == (True, False)
        # The IOMMU itself says that it stopped the device at what was not mapped and at what was unmapped. The kernel
        # logs ten faults in five seconds and drops the rest, and other tests make some: then it is done once more.
        faults += [fault for fault in kernel_log.dmar_faults() if roles["edu"][5:] in fault]
        missing = [text for text in wanted if not any(text in fault for fault in faults)]
        if not missing:
            return
        time.sleep(6)
    pytest.fail(f"no fault logged for {missing}: {faults}")


def test_what_the_device_may_only_read_it_does_not_write(groups: list[int], roles: Mapping[str, str]) -> None:
    with (
        edu.opened(groups[0], roles["edu"]) as (container, device),
        make(ANONYMOUS, PAGE) as there,
        make(ANONYMOUS, PAGE) as back,
    ):
        there.write(0, b"kept")
        back.write(0, b"data")
        vfio.iommu_map_dma(container, there.address, DESTINATION, PAGE, dma.PROTECTIONS["r"])
        vfio.iommu_map_dma(container, back.address, SOURCE, PAGE, RW)
        device.dma_copy(SOURCE, DESTINATION, 4)
        assert there.read(0, 4) == b"kept"
        device.dma_copy(DESTINATION, SOURCE, 4)
        assert back.read(0, 4) == b"kept"


def test_the_proof_as_a_command(
    groups: list[int], roles: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert edu_main([str(groups[0]), roles["edu"]]) == 0
    assert capsys.readouterr().out.count("ok ") == 6
    assert edu_main([str(groups[0]), roles["nic_a"]]) == 1
    assert capsys.readouterr().out.startswith("FAIL  VFIO_GROUP_GET_DEVICE_FD: No such device")
