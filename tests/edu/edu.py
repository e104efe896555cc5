"""A user-space driver for QEMU's ``edu`` device (1234:11e8), on vfioctl's own ioctl backend.

Registers and behaviour: QEMU, docs/specs/edu.rst. Its DMA engine has an address mask
of 28 bits, so every IOVA that it is given has to lie below 256 MiB.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vfioctl.host import vfio, vfio_device, vfio_irqs
from vfioctl.uapi import vfio as uapi

# Offsets in BAR 0
IDENTIFICATION = 0x00
LIVENESS = 0x04
INTERRUPT_STATUS = 0x24
INTERRUPT_RAISE = 0x60
INTERRUPT_ACKNOWLEDGE = 0x64
DMA_SOURCE = 0x80
DMA_DESTINATION = 0x88
DMA_COUNT = 0x90
DMA_COMMAND = 0x98

#: Major version, minor version, and "edu" in the low half, as the device says.
EDU_ID = 0x010000ED

#: Where the device's own memory of 4096 bytes lies in its address space.
DMA_BUFFER = 0x40000

#: Bytes moved at a time. QEMU 7.2 dies of a transfer that ends exactly where the device's memory ends.
DMA_STEP = 2048

DMA_START = 1
DMA_FROM_DEVICE = 2
DMA_INTERRUPT = 4

#: What the device raises when a transfer with DMA_INTERRUPT is over.
DMA_INTERRUPT_STATUS = 0x100

PCI_COMMAND = 0x04
PCI_COMMAND_MEMORY = 0x2
PCI_COMMAND_MASTER = 0x4


class EduTimeout(Exception):
    """The device did not finish in time."""


class Edu:
    """An open edu device: ``device`` is its VFIO descriptor. Registers are reached by pread and pwrite."""

    def __init__(self, device: int) -> None:
        self.device = device
        self._bar = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_BAR0_REGION_INDEX).offset
        self._config = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_CONFIG_REGION_INDEX).offset
        self._enable()
        for self._order in "<>":  # QEMU gives the registers the byte order of the emulated architecture
            found = self.read32(IDENTIFICATION)
            if found == EDU_ID:
                return
        raise ValueError(f"this is no edu device: it identifies itself as {found:#010x}")

    def _enable(self) -> None:
        # VFIO clears bus mastering on open; without it the device's DMA goes nowhere.
        command = struct.unpack("<H", os.pread(self.device, 2, self._config + PCI_COMMAND))[0]
        command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER
        os.pwrite(self.device, struct.pack("<H", command), self._config + PCI_COMMAND)

    def read32(self, register: int) -> int:
        """A 32-bit register."""
        return int(struct.unpack(f"{self._order}I", os.pread(self.device, 4, self._bar + register))[0])

    def write32(self, register: int, value: int) -> None:
        """Set a 32-bit register."""
        os.pwrite(self.device, struct.pack(f"{self._order}I", value), self._bar + register)

    def _write64(self, register: int, value: int) -> None:
        os.pwrite(self.device, struct.pack(f"{self._order}Q", value), self._bar + register)

    def alive(self) -> bool:
        """Whether the device answers with the complement of what it is told."""
        self.write32(LIVENESS, 0x12345678)
        return self.read32(LIVENESS) == 0xEDCBA987

    def transfer(self, source: int, destination: int, size: int, command: int, timeout: float = 10.0) -> None:
        """One run of the DMA engine. EduTimeout when the device is not done after ``timeout`` seconds."""
        self._write64(DMA_SOURCE, source)
        self._write64(DMA_DESTINATION, destination)
        self._write64(DMA_COUNT, size)
        self._write64(DMA_COMMAND, command | DMA_START)
        deadline = time.monotonic() + timeout
        while self.read32(DMA_COMMAND) & DMA_START:
            if time.monotonic() > deadline:
                raise EduTimeout(
                    f"{size} bytes from {source:#x} to {destination:#x}: not done after {timeout} s"
                )
            time.sleep(0.005)

    def dma_copy(self, source: int, destination: int, size: int, timeout: float = 10.0) -> None:
        """Copy ``size`` bytes from IOVA ``source`` through the device's memory to IOVA ``destination``.

        EduTimeout when one of its transfers takes longer than ``timeout`` seconds.
        """
        for done in range(0, size, DMA_STEP):
            step = min(DMA_STEP, size - done)
            self.transfer(source + done, DMA_BUFFER, step, 0, timeout)
            self.transfer(DMA_BUFFER, destination + done, step, DMA_FROM_DEVICE, timeout)

    @contextmanager
    def interrupts(self, index: int = uapi.VFIO_PCI_MSI_IRQ_INDEX) -> Iterator[int]:
        """An eventfd that the device's interrupt signals while the block runs."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            vfio_irqs.device_set_irqs(self.device, index, 0, [event])
            try:
                yield event
            finally:
                vfio_irqs.device_disable_irqs(self.device, index)
        finally:
            os.close(event)

    def raise_interrupt(self, value: int = 1) -> None:
        """Make the device interrupt, with ``value`` in its status."""
        self.write32(INTERRUPT_RAISE, value)

    def acknowledge(self) -> int:
        """Take the interrupt back; returns the status it had."""
        status = self.read32(INTERRUPT_STATUS)
        self.write32(INTERRUPT_ACKNOWLEDGE, status)
        return status


def wait(event: int, timeout: float = 10.0) -> int:
    """How many interrupts an eventfd has counted; EduTimeout when there was none within ``timeout`` seconds."""
    if not select.select([event], [], [], timeout)[0]:
        raise EduTimeout(f"no interrupt after {timeout} s")
    return os.eventfd_read(event)


@contextmanager
def opened(group: int, address: str, dev: str = "/dev") -> Iterator[tuple[int, Edu]]:
    """The container and the device, attached with type1v2 while the block runs. Opening resets the device."""
    with ExitStack() as stack:
        container = stack.enter_context(vfio.opened(vfio.container_path(dev)))
        group_fd = stack.enter_context(vfio.opened(vfio.group_path(group, dev)))
        vfio.group_set_container(group_fd, container)
        stack.callback(vfio.group_unset_container, group_fd)
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        device = vfio.group_get_device_fd(group_fd, address)
        stack.callback(os.close, device)
        yield container, Edu(device)
