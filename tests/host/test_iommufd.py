"""The ioctls of iommufd: what goes to the kernel and what comes back. The rest needs a kernel."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest

from tests.host.answers import Answers, fill, pointed
from vfioctl.host import iommufd, iommufd_hw
from vfioctl.host.ioctl import CallError, Refused
from vfioctl.uapi import iommufd as uapi

Prepare = Callable[..., Answers]
RW = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE


def test_the_node() -> None:
    assert iommufd.iommufd_path("/x") == "/x/iommu"


def test_an_address_space_comes_and_goes(answers: Prepare) -> None:
    kernel = answers(struct.pack("=III", 12, 0, 5))
    assert iommufd.ioas_alloc(3) == 5
    iommufd.destroy(3, 5)
    assert kernel.seen == [
        ("IOMMU_IOAS_ALLOC", struct.pack("=III", 12, 0, 0)),
        ("IOMMU_DESTROY", struct.pack("=II", 8, 5)),
    ]


def ranges(*found: tuple[int, int]) -> Callable[[bytearray], None]:
    def answer(argument: bytearray) -> None:
        fill(argument, 16, b"".join(struct.pack("=QQ", *each) for each in found))
        struct.pack_into("=I", argument, 8, len(found))
        struct.pack_into("=Q", argument, 24, 4096)

    return answer


def test_ranges_and_their_alignment(answers: Prepare) -> None:
    answers(ranges((0, 0xFEDFFFFF), (0xFEF00000, 2**64 - 1)))
    found = iommufd.ioas_iova_ranges(3, 5)
    assert found == (((0, 0xFEDFFFFF), (0xFEF00000, 2**64 - 1)), 4096)


def test_more_ranges_than_there_was_room_for(answers: Prepare) -> None:
    many = [(at * 8192, at * 8192 + 4095) for at in range(100)]
    kernel = answers(errno.EMSGSIZE, ranges(*many))
    assert iommufd.ioas_iova_ranges(3, 5).ranges == tuple(many)
    room = [struct.unpack_from("=I", argument, 8)[0] for _, argument in kernel.seen]
    assert room[0] < 100 <= room[1]


def test_a_kernel_that_never_has_enough_room(answers: Prepare) -> None:
    kernel = answers(*[errno.EMSGSIZE] * 20)
    with pytest.raises(CallError, match="IOMMU_IOAS_IOVA_RANGES: Message too long"):
        iommufd.ioas_iova_ranges(3, 5)
    assert 1 < len(kernel.seen) < 10


def test_allowed_ranges_go_by_pointer(answers: Prepare) -> None:
    seen = []
    answers(lambda argument: seen.append((struct.unpack_from("=IIII", argument), pointed(argument, 16, 32))))
    iommufd.ioas_allow_iovas(3, 5, [(0, 0xFFFF), (0x20000, 0x2FFFF)])
    assert seen == [((24, 5, 2, 0), struct.pack("=QQQQ", 0, 0xFFFF, 0x20000, 0x2FFFF))]


def test_a_fixed_mapping(answers: Prepare) -> None:
    kernel = answers()
    assert iommufd.ioas_map(3, 5, 0x7F0000000000, 0x2000, RW, 0) == 0
    assert kernel.seen == [
        ("IOMMU_IOAS_MAP", struct.pack("=IIIIQQQ", 40, 7, 5, 0, 0x7F0000000000, 0x2000, 0))
    ]


def test_a_mapping_where_the_kernel_likes(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIIIQQQ", 40, 6, 5, 0, 0, 0, 0xABC000))
    assert iommufd.ioas_map(3, 5, 0x7F0000000000, 0x2000, RW) == 0xABC000
    assert struct.unpack_from("=I", kernel.seen[0][1], 4) == (6,)


def test_many_mappings_and_how_far_they_came(answers: Prepare) -> None:
    kernel = answers(b"", b"", errno.ENOMEM)
    wanted = [(0x1000, 0x10000, 4096), (0x2000, 0x20000, 4096), (0x3000, 0x30000, 4096)]
    with pytest.raises(Refused, match="IOMMU_IOAS_MAP") as caught:
        iommufd.ioas_map_each(3, 5, wanted, RW)
    assert (caught.value.item, caught.value.errno) == (wanted[2], errno.ENOMEM)
    assert [argument for _, argument in kernel.seen] == [
        struct.pack("=IIIIQQQ", 40, 7, 5, 0, vaddr, size, iova) for vaddr, iova, size in wanted
    ]


def test_a_file_and_a_copy(answers: Prepare) -> None:
    kernel = answers()
    assert iommufd.ioas_map_file(3, 5, 9, 0x1000, 0x2000, RW, 0x8000) == 0x8000
    assert iommufd.ioas_copy(3, 5, 0x8000, 0x2000, 6, RW, 0x9000) == 0x9000
    assert kernel.seen == [
        ("IOMMU_IOAS_MAP_FILE", struct.pack("=IIIiQQQ", 40, 7, 5, 9, 0x1000, 0x2000, 0x8000)),
        ("IOMMU_IOAS_COPY", struct.pack("=IIIIQQQ", 40, 7, 6, 5, 0x2000, 0x9000, 0x8000)),
    ]


def test_unmapped_bytes(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIQQ", 24, 5, 0x1000, 0x3000), struct.pack("=IIQQ", 24, 5, 0, 0x9000))
    assert iommufd.ioas_unmap(3, 5, 0x1000, 0x3000) == 0x3000
    assert iommufd.ioas_unmap_all(3, 5) == 0x9000
    assert kernel.seen[1] == ("IOMMU_IOAS_UNMAP", struct.pack("=IIQQ", 24, 5, 0, 2**64 - 1))


def test_options(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIHHIQ", 24, 1, 1, 0, 5, 1))
    assert iommufd.option_get(3, uapi.IOMMU_OPTION_HUGE_PAGES, 5) == 1
    iommufd.option_set(3, uapi.IOMMU_OPTION_RLIMIT_MODE, 1)
    assert kernel.seen == [
        ("IOMMU_OPTION", struct.pack("=IIHHIQ", 24, 1, 1, 0, 5, 0)),
        ("IOMMU_OPTION", struct.pack("=IIHHIQ", 24, 0, 0, 0, 0, 1)),
    ]


def test_the_address_space_of_the_container_calls(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIHH", 12, 5, 0, 0))
    assert iommufd.vfio_ioas_get(3) == 5
    iommufd.vfio_ioas_set(3, 6)
    iommufd.vfio_ioas_clear(3)
    assert [struct.unpack("=IIHH", argument) for _, argument in kernel.seen] == [
        (12, 0, 0, 0),
        (12, 6, 1, 0),
        (12, 0, 2, 0),
    ]


def test_another_process_is_charged(answers: Prepare) -> None:
    kernel = answers()
    iommufd.ioas_change_process(3)
    assert kernel.seen == [("IOMMU_IOAS_CHANGE_PROCESS", struct.pack("=II", 8, 0))]


def hardware(kind: int, data: bytes, length: int | None = None) -> Callable[[bytearray], None]:
    def answer(argument: bytearray) -> None:
        fill(argument, 16, data)
        struct.pack_into("=I", argument, 12, len(data) if length is None else length)
        struct.pack_into("=IB3xQ", argument, 24, kind, 20, 1)

    return answer


@pytest.mark.parametrize(
    ("kind", "data", "registers"),
    [
        (1, struct.pack("=IIQQ", 0, 0, 0xD2, 0xF0), {"flags": 0, "cap_reg": 0xD2, "ecap_reg": 0xF0}),
        (
            2,
            struct.pack("=II6III", 0, 0, *range(6), 0x43B, 3),
            {"flags": 0} | {f"idr{at}": at for at in range(6)} | {"iidr": 0x43B, "aidr": 3},
        ),
        (
            3,
            struct.pack("=IBBBB", 0, 1, 2, 3, 0),
            {"flags": 0, "version": 1, "log2vcmdqs": 2, "log2vsids": 3},
        ),
        (4, struct.pack("=QQ", 5, 6), {"efr": 5, "efr2": 6}),
        (0, b"", {}),
        (99, b"12345678", {}),
    ],
)
def test_the_iommu_of_a_device(answers: Prepare, kind: int, data: bytes, registers: dict[str, int]) -> None:
    kernel = answers(hardware(kind, data))
    assert iommufd_hw.get_hw_info(3, 7) == (kind, 1, 20, registers)
    assert struct.unpack_from("=III", kernel.seen[0][1]) == (40, 0, 7)


def test_registers_that_the_kernel_does_not_have(answers: Prepare) -> None:
    answers(hardware(1, b"1234", 4))
    assert iommufd_hw.get_hw_info(3, 7).registers == {}


def test_a_hardware_page_table(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIIII4x", 24, 2, 7, 5, 8))
    assert iommufd_hw.hwpt_alloc(3, 7, 5, uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING) == 8
    iommufd_hw.hwpt_set_dirty_tracking(3, 8, True)
    iommufd_hw.hwpt_set_dirty_tracking(3, 8, False)
    assert kernel.seen == [
        ("IOMMU_HWPT_ALLOC", struct.pack("=IIIIII", 24, 2, 7, 5, 0, 0)),
        ("IOMMU_HWPT_SET_DIRTY_TRACKING", struct.pack("=IIII", 16, 1, 8, 0)),
        ("IOMMU_HWPT_SET_DIRTY_TRACKING", struct.pack("=IIII", 16, 0, 8, 0)),
    ]


@pytest.mark.parametrize(("clear", "flags"), [(True, 0), (False, 1)])
def test_dirty_pages(answers: Prepare, clear: bool, flags: int) -> None:
    kernel = answers(lambda argument: fill(argument, 40, struct.pack("=QQ", 1 << 9 | 1, 1)))
    found = iommufd_hw.hwpt_get_dirty_bitmap(3, 8, 0x10000, 65 * 4096, 4096, clear=clear)
    assert found == b"\x01\x02" + bytes(6) + b"\x01" + bytes(7)
    assert struct.unpack_from("=IIIIQQQ", kernel.seen[0][1]) == (48, 8, flags, 0, 0x10000, 65 * 4096, 4096)
