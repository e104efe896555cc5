"""The ioctl backend: errors carry the call, integers come back, answers may grow. The rest needs a kernel."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any
from uuid import UUID

import pytest

from vfioctl.host import vfio, vfio_device, vfio_irqs
from vfioctl.host.ioctl import CallError, Refused, ioctl, open_node
from vfioctl.uapi import vfio as uapi


def test_an_ioctl_error_names_the_call() -> None:
    with vfio.opened("/dev/null") as fd, pytest.raises(CallError) as caught:
        ioctl(fd, uapi.VFIO_GET_API_VERSION)
    assert isinstance(caught.value, OSError)
    assert (caught.value.call, caught.value.errno) == ("VFIO_GET_API_VERSION", errno.ENOTTY)
    assert str(caught.value) == "VFIO_GET_API_VERSION: Inappropriate ioctl for device"


def test_an_open_error_names_the_file() -> None:
    with pytest.raises(CallError) as caught:
        open_node("/dev/vfio/none/such")
    assert (caught.value.call, caught.value.errno) == ("open", errno.ENOENT)
    assert caught.value.filename == "/dev/vfio/none/such"
    assert str(caught.value) == "open /dev/vfio/none/such: No such file or directory"


def test_a_node_is_closed_on_exec_and_after_the_block() -> None:
    with vfio.opened("/dev/null") as fd:
        assert not os.get_inheritable(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_paths() -> None:
    assert vfio.container_path() == "/dev/vfio/vfio"
    assert vfio.group_path(26, "/x") == "/x/vfio/26"
    assert vfio.group_path("noiommu-3") == "/dev/vfio/noiommu-3"


def test_info_of_linux_before_5_4_has_no_capabilities(answers: Any) -> None:
    stand_in = answers(struct.pack("=IIQ", 24, 1, 0xFFFFFFFFFFFFF000))
    assert vfio.iommu_get_info(3) == (0xFFFFFFFFFFFFF000, None, None, None, None)
    assert stand_in.seen == [("VFIO_IOMMU_GET_INFO", struct.pack("=I20x", 24))]


def test_info_grows_until_the_answer_fits(answers: Any) -> None:
    avail = struct.pack("=HHII", 3, 1, 0, 65535)
    stand_in = answers(
        struct.pack("=IIQI4x", 30, 3, 4096, 0),
        struct.pack("=IIQI4x", 36, 3, 4096, 0),
        struct.pack("=IIQI4x", 36, 3, 4096, 24) + avail,
    )
    assert vfio.iommu_get_info(3).dma_avail == 65535
    assert [(len(argument), argument[:4]) for _, argument in stand_in.seen] == [
        (size, struct.pack("=I", size)) for size in (24, 30, 36)
    ]


def test_an_absurd_size_is_not_believed(answers: Any) -> None:
    stand_in = answers(struct.pack("=IIQI4x", 0xFFFFFFFF, 3, 4096, 24))
    assert vfio.iommu_get_info(3).iova_ranges is None
    assert len(stand_in.seen) == 1


def test_ranges_are_limited_by_the_buffer(answers: Any) -> None:
    chain = struct.pack("=HHII4xQQ", 1, 1, 0, 4000000000, 0x1000, 0xFFFF)
    info = struct.pack("=IIQI4x", 24 + len(chain), 3, 4096, 24)
    answers(info, info + chain)
    assert vfio.iommu_get_info(3).iova_ranges == ((0x1000, 0xFFFF),)


def test_the_device_descriptor_comes_back(answers: Any) -> None:
    stand_in = answers(result=42)
    assert vfio.group_get_device_fd(3, "0000:06:0d.0") == 42
    assert stand_in.seen == [("VFIO_GROUP_GET_DEVICE_FD", b"0000:06:0d.0\0")]
    with pytest.raises(ValueError, match="NUL"):
        vfio.group_get_device_fd(3, "0000:06:0d.0\0x")
    vfio.group_get_device_fd(3, "0000:06:0d.0", UUID(int=7))
    _, asked = stand_in.seen[-1]
    assert asked == b"0000:06:0d.0 vf_token=00000000-0000-0000-0000-000000000007\0"


def test_the_container_goes_by_pointer(answers: Any) -> None:
    stand_in = answers()
    vfio.group_set_container(3, 7)
    assert stand_in.seen == [("VFIO_GROUP_SET_CONTAINER", struct.pack("=i", 7))]


def test_an_extension_answered_with_a_negative_number_is_absent(answers: Any) -> None:
    answers(result=-1)
    assert vfio.check_extension(3, 4) is False


def test_region_capabilities(answers: Any) -> None:
    chain = struct.pack("=HHII4xQQQQ", 1, 1, 80, 2, 0, 0x1000, 0x3000, 0x1000)
    chain += struct.pack("=HHIII", 2, 1, 96, 0x80008086, 1) + struct.pack("=HHI", 3, 1, 0)
    info = struct.pack("=IIIIQQ", 32 + len(chain), 15, 2, 32, 0x4000, 2 << 40)
    stand_in = answers(info, info + chain)
    region = vfio_device.device_get_region_info(3, 2)
    assert region == (15, 0x4000, 2 << 40, ((0, 0x1000), (0x3000, 0x1000)), (0x80008086, 1), True)
    assert all(argument[8:12] == struct.pack("=I", 2) for _, argument in stand_in.seen)


def test_eventfds_follow_the_header(answers: Any) -> None:
    stand_in = answers()
    vfio_irqs.device_set_irqs(3, uapi.VFIO_PCI_MSI_IRQ_INDEX, 0, [9, -1])
    assert stand_in.seen == [("VFIO_DEVICE_SET_IRQS", struct.pack("=IIIIIii", 28, 4 | 32, 1, 0, 2, 9, -1))]
    vfio_irqs.device_disable_irqs(3, uapi.VFIO_PCI_MSI_IRQ_INDEX)
    assert stand_in.seen[-1] == ("VFIO_DEVICE_SET_IRQS", struct.pack("=IIIII", 20, 1 | 32, 1, 0, 0))


def test_many_mappings_and_how_far_they_came(answers: Any) -> None:
    kernel = answers(b"", b"", errno.ENOSPC)
    wanted = [(0x1000, 0x10000, 4096), (0x2000, 0x20000, 4096), (0x3000, 0x30000, 4096)]
    with pytest.raises(Refused, match="VFIO_IOMMU_MAP_DMA") as caught:
        vfio.iommu_map_dma_each(3, wanted, 3)
    assert (caught.value.item, caught.value.errno) == (wanted[2], errno.ENOSPC)
    assert [argument for _, argument in kernel.seen] == [
        struct.pack("=IIQQQ", 32, 3, *each) for each in wanted
    ]


def test_everything_is_unmapped(answers: Any) -> None:
    kernel = answers(struct.pack("=IIQQ", 24, 2, 0, 0x5000))
    assert vfio.iommu_unmap_all(3) == 0x5000
    assert kernel.seen == [("VFIO_IOMMU_UNMAP_DMA", struct.pack("=IIQQ", 24, 2, 0, 0))]
