"""What real DMA proves: that a mapping maps, and that what is not mapped is out of the device's reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from tests.edu import edu
from vfioctl.host import vfio
from vfioctl.host.memory import ANONYMOUS, make
from vfioctl.uapi import vfio as uapi

PAGE = 4096
SOURCE = 0x100000
DESTINATION = 0x200000
UNMAPPED = 0x300000
RW = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE


class Verdict(NamedTuple):
    """One thing that was tried."""

    passed: bool
    text: str


def prove(group: int, address: str, dev: str = "/dev") -> Iterator[Verdict]:
    """Try everything on an edu device. OSError when the kernel refuses a call, EduTimeout when the device hangs."""
    with ExitStack() as stack:
        container, device = stack.enter_context(edu.opened(group, address, dev))
        source = stack.enter_context(make(ANONYMOUS, PAGE))
        destination = stack.enter_context(make(ANONYMOUS, PAGE))
        for iova, buffer in ((SOURCE, source), (DESTINATION, destination)):
            vfio.iommu_map_dma(container, buffer.address, iova, PAGE, RW)
        yield Verdict(device.alive(), f"{address} answers at its registers")

        pattern = os.urandom(PAGE)
        source.write(0, pattern)
        device.dma_copy(SOURCE, DESTINATION, PAGE)
        yield Verdict(
            destination.read(0, PAGE) == pattern,
            f"{PAGE} bytes copied by the device from IOVA {SOURCE:#x} to IOVA {DESTINATION:#x} are equal",
        )

        source.write(0, os.urandom(PAGE))
        device.dma_copy(SOURCE, UNMAPPED, PAGE)
        yield Verdict(
            destination.read(0, PAGE) == pattern,
            f"a copy to IOVA {UNMAPPED:#x}, which is not mapped, leaves memory untouched",
        )

        unmapped = vfio.iommu_unmap_dma(container, DESTINATION, PAGE)
        yield Verdict(unmapped == PAGE, f"IOVA {DESTINATION:#x} is unmapped again: {unmapped} bytes")
        device.dma_copy(SOURCE, DESTINATION, PAGE)
        yield Verdict(
            destination.read(0, PAGE) == pattern,
            f"a copy to IOVA {DESTINATION:#x} leaves memory untouched now",
        )

        with device.interrupts() as event:
            device.raise_interrupt(0x55)
            count = edu.wait(event)
            yield Verdict(count == 1 and device.acknowledge() == 0x55, "the device's interrupt arrives (MSI)")
        vfio.iommu_unmap_dma(container, SOURCE, PAGE)
