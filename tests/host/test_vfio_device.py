"""The ioctls of devices: what goes to the kernel and what comes back. The rest needs a kernel."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.host.answers import Answers, fill, pointed
from vfioctl.host import vfio_cdev, vfio_device, vfio_dirty, vfio_features, vfio_irqs, vfio_reset
from vfioctl.host.ioctl import CallError
from vfioctl.uapi import feature
from vfioctl.uapi import vfio as uapi

Prepare = Callable[..., Answers]
TOKEN = UUID("00112233-4455-6677-8899-aabbccddeeff")


def chained(*capabilities: tuple[int, int, bytes]) -> tuple[bytes, bytes]:
    """What VFIO_DEVICE_GET_INFO answers the first time and the second: capabilities (id, version, data), packed."""
    chain = b""
    for at, (id, version, data) in enumerate(capabilities):
        here = 24 + len(chain)
        following = 0 if at == len(capabilities) - 1 else here + 8 + len(data)
        chain += struct.pack("=HHI", id, version, following) + data
    info = struct.pack("=IIIIII", 24 + len(chain), 0x82, 9, 5, 24, 0)
    return info, info + chain


def test_a_device_without_capabilities(answers: Prepare) -> None:
    answers(struct.pack("=IIIIII", 24, 3, 9, 5, 0, 0))
    assert vfio_device.device_get_info(3) == (3, 9, 5, None, None)


def test_atomic_completion(answers: Prepare) -> None:
    answers(*chained((5, 1, struct.pack("=II", 3, 0))))
    assert vfio_device.device_get_info(3).atomic_completion == 3


BASE = struct.pack("=QQHHHBB", 1 << 32, (1 << 40) - 1, 0x1C0, 2, 64, 4, 3)
GROUP = struct.pack("=QQQHHHBx", 7, 8, 1, 9, 10, 128, 0)


def test_a_zpci_device_of_linux_5_10_packs_its_capabilities(answers: Prepare) -> None:
    texts = (3, 1, struct.pack("=I", 4) + b"\xe3\xc5\xe2\xe3"), (4, 1, struct.pack("=I", 2) + b"\x01\x02")
    answers(*chained((1, 1, BASE), (2, 1, GROUP), *texts))
    zpci = vfio_device.device_get_info(3).zpci
    assert zpci is not None
    assert zpci.base == {
        "start_dma": 1 << 32,
        "end_dma": (1 << 40) - 1,
        "pchid": 0x1C0,
        "vfn": 2,
        "fmb_length": 64,
        "pft": 4,
        "gid": 3,
    }
    assert zpci.group["maxstbl"] == 128
    assert (zpci.util_str, zpci.pfip) == (b"\xe3\xc5\xe2\xe3", b"\x01\x02")


def test_the_function_handle_of_linux_6_0(answers: Prepare) -> None:
    answers(*chained((1, 2, BASE + struct.pack("=I4x", 0xABCD))))
    zpci = vfio_device.device_get_info(3).zpci
    assert zpci is not None
    assert zpci.base["fh"] == 0xABCD
    assert zpci.group == {}


def test_a_zpci_capability_that_is_cut_short(answers: Prepare) -> None:
    answers(*chained((1, 2, BASE[:8])))
    assert vfio_device.device_get_info(3).zpci is None


def test_a_mask_and_its_end(answers: Prepare) -> None:
    kernel = answers()
    vfio_irqs.device_mask_irq(3, uapi.VFIO_PCI_INTX_IRQ_INDEX)
    vfio_irqs.device_unmask_irq(3, uapi.VFIO_PCI_INTX_IRQ_INDEX)
    vfio_irqs.device_trigger_irq(3, uapi.VFIO_PCI_MSIX_IRQ_INDEX, 2)
    assert [struct.unpack("=IIIII", argument) for _, argument in kernel.seen] == [
        (20, 1 | 8, 0, 0, 1),
        (20, 1 | 16, 0, 0, 1),
        (20, 1 | 32, 2, 2, 1),
    ]


def affected(flags: int, *devices: tuple[int, int, int, int]) -> bytes:
    items = b"".join(struct.pack("=iHBB", *each) for each in devices)
    return struct.pack("=III", 12 + len(items), flags, len(devices)) + items


def test_the_scope_of_a_hot_reset_by_groups(answers: Prepare) -> None:
    answers(affected(0, (26, 0, 6, 0x68), (27, 1, 6, 0x69)))
    assert vfio_reset.device_get_pci_hot_reset_info(3) == (
        (("0000:06:0d.0", 26, None, None), ("0001:06:0d.1", 27, None, None)),
        None,
    )


def test_the_scope_of_a_hot_reset_by_devices(answers: Prepare) -> None:
    answers(affected(1, (4, 0, 6, 0), (0, 0, 6, 1), (-1, 0, 6, 2)))
    info = vfio_reset.device_get_pci_hot_reset_info(3)
    assert [each[2:] for each in info.devices] == [(4, True), (None, True), (None, False)]
    assert info.owned is False
    answers(affected(3, (4, 0, 6, 0)))
    assert vfio_reset.device_get_pci_hot_reset_info(3).owned is True


def test_a_scope_that_is_larger_than_expected(answers: Prepare) -> None:
    many = [(26, 0, bus, devfn) for bus in range(2) for devfn in range(256)]
    kernel = answers(errno.ENOSPC, affected(0, *many))
    assert len(vfio_reset.device_get_pci_hot_reset_info(3).devices) == 512
    assert all(
        struct.unpack_from("=I", argument) == (len(argument),) and not any(argument[4:])
        for _, argument in kernel.seen
    )
    kernel = answers(*[errno.ENOSPC] * 20)
    with pytest.raises(CallError, match="VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: No space"):
        vfio_reset.device_get_pci_hot_reset_info(3)
    assert 1 < len(kernel.seen) < 10


def test_a_count_that_the_answer_does_not_hold(answers: Prepare) -> None:
    answers(struct.pack("=III", 20, 0, 4000000000))
    assert len(vfio_reset.device_get_pci_hot_reset_info(3).devices) == 64


def test_hot_resets(answers: Prepare) -> None:
    kernel = answers()
    vfio_reset.device_pci_hot_reset(3, [7, 8])
    vfio_reset.device_pci_hot_reset(3)
    vfio_reset.device_reset(3)
    assert kernel.seen == [
        ("VFIO_DEVICE_PCI_HOT_RESET", struct.pack("=IIIii", 20, 0, 2, 7, 8)),
        ("VFIO_DEVICE_PCI_HOT_RESET", struct.pack("=III", 12, 0, 0)),
        ("VFIO_DEVICE_RESET", 0),
    ]


@pytest.mark.parametrize(("answer", "there"), [(b"", True), (errno.ENOTTY, False), (errno.EINVAL, False)])
def test_a_probe(answers: Prepare, answer: bytes | int, there: bool) -> None:
    kernel = answers(answer)
    operation = feature.VFIO_DEVICE_FEATURE_GET
    assert vfio_features.device_feature_probe(3, feature.VFIO_DEVICE_FEATURE_MIGRATION, operation) is there
    assert kernel.seen == [("VFIO_DEVICE_FEATURE", struct.pack("=II", 8, 0x50001))]


def test_a_probe_that_fails_otherwise(answers: Prepare) -> None:
    answers(errno.EIO)
    with pytest.raises(CallError, match="VFIO_DEVICE_FEATURE"):
        vfio_features.device_feature_probe(3, 1, feature.VFIO_DEVICE_FEATURE_GET)


def test_migration(answers: Prepare) -> None:
    kernel = answers(
        struct.pack("=IIQ", 16, 0x10001, 7), struct.pack("=IIIi", 16, 0x10002, 2, -1), bytes(8) + b"\1" * 8
    )
    assert vfio_features.device_migration(3) == 7
    assert vfio_features.device_migration_state(3) == feature.VFIO_DEVICE_STATE_RUNNING
    assert vfio_features.device_migration_size(3) == 0x0101010101010101
    assert [struct.unpack("=IIQ", argument) for _, argument in kernel.seen] == [
        (16, 0x10000 | number, 0) for number in (1, 2, 9)
    ]


def test_what_is_set(answers: Prepare) -> None:
    kernel = answers()
    vfio_features.device_low_power_entry(3)
    vfio_features.device_low_power_entry(3, 9)
    vfio_features.device_low_power_exit(3)
    vfio_features.device_bus_master(3, True)
    vfio_features.device_bus_master(3, False)
    vfio_features.device_vf_token(3, TOKEN)
    assert [argument for _, argument in kernel.seen] == [
        struct.pack("=II", 8, 0x20003),
        struct.pack("=IIiI", 16, 0x20004, 9, 0),
        struct.pack("=II", 8, 0x20005),
        struct.pack("=III", 12, 0x2000A, 1),
        struct.pack("=III", 12, 0x2000A, 0),
        struct.pack("=II", 24, 0x20000) + TOKEN.bytes,
    ]


def test_a_device_is_bound_and_attached(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIiI", 16, 0, 4, 7), struct.pack("=III", 12, 0, 9))
    assert vfio_cdev.device_path("vfio0", "/x") == "/x/vfio/devices/vfio0"
    assert vfio_cdev.device_bind_iommufd(3, 4) == 7
    assert vfio_cdev.device_attach_iommufd_pt(3, 5) == 9
    vfio_cdev.device_detach_iommufd_pt(3)
    # What a kernel of 6.6 takes is the size that is stated first; it does not read on.
    assert [
        (name, struct.unpack_from(f"={argument[0] // 4}I", argument)) for name, argument in kernel.seen
    ] == [
        ("VFIO_DEVICE_BIND_IOMMUFD", (16, 0, 4, 0)),
        ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", (12, 0, 5)),
        ("VFIO_DEVICE_DETACH_IOMMUFD_PT", (8, 0)),
    ]


def test_a_pasid(answers: Prepare) -> None:
    kernel = answers()
    vfio_cdev.device_attach_iommufd_pt(3, 5, 1)
    vfio_cdev.device_detach_iommufd_pt(3, 1)
    assert [argument for _, argument in kernel.seen] == [
        struct.pack("=IIII", 16, 1, 5, 1),
        struct.pack("=III", 12, 1, 1),
    ]


def test_a_token_goes_by_pointer(answers: Prepare) -> None:
    seen = []
    answers(lambda argument: seen.append((struct.unpack_from("=IIiI", argument), pointed(argument, 16, 16))))
    vfio_cdev.device_bind_iommufd(3, 4, TOKEN)
    assert seen == [((24, 1, 4, 0), TOKEN.bytes)]


def test_dirty_pages_of_a_container(answers: Prepare) -> None:
    kernel = answers(b"", lambda argument: fill(argument, 40, struct.pack("=Q", 5)), b"")
    vfio_dirty.iommu_dirty_pages_start(3)
    assert vfio_dirty.iommu_dirty_pages_get(3, 0x1000, 3 * 4096, 4096) == b"\x05" + bytes(7)
    vfio_dirty.iommu_dirty_pages_stop(3)
    assert {name for name, _ in kernel.seen} == {"VFIO_IOMMU_DIRTY_PAGES"}
    assert [struct.unpack_from("=II", argument) for _, argument in kernel.seen] == [(8, 1), (48, 4), (8, 2)]
    assert struct.unpack_from("=QQQQ", kernel.seen[1][1], 8) == (0x1000, 3 * 4096, 4096, 8)
