"""The ioctls of sPAPR containers and of EEH: what goes to the kernel and what comes back."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.host.answers import Answers
from vfioctl.host import spapr
from vfioctl.uapi import spapr as uapi

Prepare = Callable[..., Answers]


def test_windows_of_v2(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIIIQII", 32, 1, 0, 1 << 30, 1 << 12 | 1 << 16, 2, 5))
    assert spapr.tce_get_info(3) == (0, 1 << 30, (1 << 12 | 1 << 16, 2, 5))
    assert kernel.seen == [("VFIO_IOMMU_SPAPR_TCE_GET_INFO", struct.pack("=I28x", 32))]


def test_the_window_of_v1(answers: Prepare) -> None:
    answers(struct.pack("=IIII", 32, 0, 0x80000000, 1 << 30))
    assert spapr.tce_get_info(3) == (0x80000000, 1 << 30, None)


def test_calls_without_an_argument(answers: Prepare) -> None:
    kernel = answers()
    spapr.enable(3)
    spapr.disable(3)
    assert kernel.seen == [("VFIO_IOMMU_ENABLE", 0), ("VFIO_IOMMU_DISABLE", 0)]


def test_memory_is_registered_as_it_is_unregistered(answers: Prepare) -> None:
    kernel = answers()
    spapr.register_memory(3, 0x7F0000000000, 0x10000)
    spapr.unregister_memory(3, 0x7F0000000000, 0x10000)
    argument = struct.pack("=IIQQ", 24, 0, 0x7F0000000000, 0x10000)
    assert kernel.seen == [
        ("VFIO_IOMMU_SPAPR_REGISTER_MEMORY", argument),
        ("VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY", argument),
    ]


def test_a_window_says_where_it_starts(answers: Prepare) -> None:
    kernel = answers(struct.pack("=IIIIQIIQ", 40, 0, 16, 0, 1 << 31, 2, 0, 1 << 59))
    assert spapr.tce_create(3, 16, 1 << 31, 2) == 1 << 59
    spapr.tce_remove(3, 1 << 59)
    assert kernel.seen == [
        ("VFIO_IOMMU_SPAPR_TCE_CREATE", struct.pack("=IIIIQIIQ", 40, 0, 16, 0, 1 << 31, 2, 0, 0)),
        ("VFIO_IOMMU_SPAPR_TCE_REMOVE", struct.pack("=IIQ", 16, 0, 1 << 59)),
    ]


def test_the_state_of_an_endpoint_is_the_result(answers: Prepare) -> None:
    kernel = answers(result=uapi.VFIO_EEH_PE_STATE_UNAVAIL)
    assert spapr.eeh_pe_op(3, uapi.VFIO_EEH_PE_GET_STATE) == 5
    name, argument = kernel.seen[0]
    assert (name, struct.unpack_from("=III", argument)) == ("VFIO_EEH_PE_OP", (12, 0, 4))


def test_an_injected_error(answers: Prepare) -> None:
    kernel = answers()
    spapr.eeh_inject_error(3, 0, 10, 0x1000, 0xFF)
    assert kernel.seen == [("VFIO_EEH_PE_OP", struct.pack("=III4xIIQQ", 40, 0, 9, 0, 10, 0x1000, 0xFF))]
