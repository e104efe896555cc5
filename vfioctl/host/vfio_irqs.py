"""Interrupts of a VFIO device: what there are, and eventfds that tell of them (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from vfioctl.host.ioctl import ioctl
from vfioctl.uapi import vfio


class IrqInfo(NamedTuple):
    """Answer of VFIO_DEVICE_GET_IRQ_INFO; ``flags`` are VFIO_IRQ_INFO_*, ``vectors`` how many."""

    flags: int
    vectors: int


def device_get_irq_info(device: int, index: int) -> IrqInfo:
    """An interrupt index; EINVAL when the device has no such index."""
    buffer = vfio.vfio_irq_info(index=index).pack()
    ioctl(device, vfio.VFIO_DEVICE_GET_IRQ_INFO, buffer)
    info = vfio.vfio_irq_info.unpack(buffer)
    return IrqInfo(info.flags, info.count)


def device_set_irqs(device: int, index: int, start: int, eventfds: Sequence[int]) -> int:
    """Let vectors ``start`` and up signal these eventfds (-1: none).

    Returns 0; before MSI-X vectors could be added one by one, a positive number says how many vectors could
    be had, and then nothing was set up.
    """
    data = struct.pack(f"={len(eventfds)}i", *eventfds)
    flags = vfio.VFIO_IRQ_SET_DATA_EVENTFD | vfio.VFIO_IRQ_SET_ACTION_TRIGGER
    return _set_irqs(device, flags, index, start, len(eventfds), data)


def device_disable_irqs(device: int, index: int) -> None:
    """Take all vectors of an index down."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0)


def device_mask_irq(device: int, index: int, start: int = 0) -> None:
    """Hold an interrupt back; ENOTTY when the index cannot (with vfio-pci, INTx can)."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_MASK, index, start, 1)


def device_unmask_irq(device: int, index: int, start: int = 0) -> None:
    """Let an interrupt that was masked, or that masked itself when it fired (INTx), fire again."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_UNMASK, index, start, 1)


def device_trigger_irq(device: int, index: int, start: int = 0) -> None:
    """Signal a vector's eventfd from software, without the device."""
    _set_irqs(device, vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_TRIGGER, index, start, 1)


def _set_irqs(device: int, flags: int, index: int, start: int, count: int, data: bytes = b"") -> int:
    argsz = vfio.vfio_irq_set.size_of + len(data)
    request = vfio.vfio_irq_set(argsz=argsz, flags=flags, index=index, start=start, count=count)
    return ioctl(device, vfio.VFIO_DEVICE_SET_IRQS, request.pack(data))
