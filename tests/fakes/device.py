"""An open VFIO device as drivers/vfio/pci makes it: a descriptor whose bytes are its regions, and its ioctls' rules.

``install`` puts it behind the ioctls of vfioctl.host, and has what is done in child processes done here.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import pytest

from vfioctl.host import bounded
from vfioctl.host.channel import Message
from vfioctl.host.ioctl import CallError
from vfioctl.ops import device as ops_device
from vfioctl.uapi import feature
from vfioctl.uapi import vfio as uapi

READ, WRITE, MMAP = 1, 2, 4
#: Where the regions lie on the descriptor, one behind the other.
STRIDE = 1 << 20


class FakeRegion(NamedTuple):
    """``content`` is what it holds at first; ``areas`` are (offset, size)."""

    size: int
    flags: int = READ | WRITE
    content: bytes = b""
    areas: tuple[tuple[int, int], ...] | None = None
    type: tuple[int, int] | None = None


class FakeIrq(NamedTuple):
    """As VFIO_DEVICE_GET_IRQ_INFO tells it."""

    vectors: int
    flags: int = 1


PCI_IRQS = (FakeIrq(1, 7), FakeIrq(1, 9), FakeIrq(0, 9), FakeIrq(1), FakeIrq(1))


class FakeDevice:
    """``eventfds``: (index, vector) to the descriptor that is signalled; ``masked``: the indices that are."""

    def __init__(
        self,
        regions: Mapping[int, FakeRegion],
        irqs: tuple[FakeIrq, ...] = PCI_IRQS,
        flags: int = uapi.VFIO_DEVICE_FLAGS_PCI | uapi.VFIO_DEVICE_FLAGS_RESET,
        num_regions: int = 9,
    ) -> None:
        self.regions = dict(regions)
        self.irqs = irqs
        self.flags = flags
        self.num_regions = num_regions
        self.fd = os.memfd_create("fake-device")
        os.ftruncate(self.fd, STRIDE * num_regions)
        for index, region in self.regions.items():
            os.pwrite(self.fd, region.content, STRIDE * index)
        self.eventfds: dict[tuple[int, int], int] = {}
        self.masked: set[int] = set()
        self.resets = 0
        self.calls: list[str] = []
        self.deaf = False
        #: What a feature answers, by its number.
        self.features: dict[int, bytes] = {}
        self.answers: dict[str, Callable[[Any], int]] = {}

    def __del__(self) -> None:
        os.close(self.fd)

    def bytes(self, index: int, offset: int, size: int) -> bytes:
        """What a region holds."""
        return os.pread(self.fd, size, STRIDE * index + offset)

    def fire(self, index: int, vector: int = 0) -> None:
        """The device interrupts."""
        if (index, vector) in self.eventfds and index not in self.masked:
            os.eventfd_write(self.eventfds[index, vector], 1)
            if self.irqs[index].flags & uapi.VFIO_IRQ_INFO_AUTOMASKED:
                self.masked.add(index)

    def ioctl(self, fd: int, request: Any, argument: Any = 0) -> int:
        self.calls.append(request.name)
        if request.name in self.answers:
            return self.answers[request.name](argument)
        if request == uapi.VFIO_DEVICE_GET_INFO:
            argument[4:16] = b"".join(
                value.to_bytes(4, "little") for value in (self.flags, self.num_regions, len(self.irqs))
            )
        elif request == uapi.VFIO_DEVICE_GET_REGION_INFO:
            self._region_info(argument)
        elif request == uapi.VFIO_DEVICE_GET_IRQ_INFO:
            index = uapi.vfio_irq_info.unpack(argument).index
            if index >= len(self.irqs):
                raise CallError(request.name, errno.EINVAL)
            irq = self.irqs[index]
            argument[:] = uapi.vfio_irq_info(flags=irq.flags, index=index, count=irq.vectors).pack()
        elif request == uapi.VFIO_DEVICE_SET_IRQS:
            return self._set_irqs(argument)
        elif request == uapi.VFIO_DEVICE_RESET:
            self.resets += 1
        elif request == uapi.VFIO_DEVICE_FEATURE:
            self._feature(argument)
        else:
            raise CallError(request.name, errno.ENOTTY)
        return 0

    def _region_info(self, buffer: bytearray) -> None:
        index = uapi.vfio_region_info.unpack(buffer).index
        if index == uapi.VFIO_PCI_VGA_REGION_INDEX and index not in self.regions:
            raise CallError("VFIO_DEVICE_GET_REGION_INFO", errno.EINVAL)
        region = self.regions.get(index, FakeRegion(0, 0))
        chain = b""
        header = uapi.vfio_info_cap_header
        if region.areas is not None:
            size = 16 + 16 * len(region.areas)
            chain += header(id=1, version=1, next=32 + size if region.type else 0).pack()
            chain += len(region.areas).to_bytes(4, "little") + bytes(4)
            for area in region.areas:
                chain += b"".join(value.to_bytes(8, "little") for value in area)
        if region.type is not None:
            chain += header(id=2, version=1).pack()
            chain += b"".join(value.to_bytes(4, "little") for value in region.type)
        info = uapi.vfio_region_info(
            argsz=32 + len(chain),
            flags=region.flags | (8 if chain else 0),
            index=index,
            size=region.size,
            offset=STRIDE * index,
        )
        if chain and len(buffer) >= 32 + len(chain):
            info.cap_offset = 32
            buffer[32 : 32 + len(chain)] = chain
        buffer[:32] = info.pack()

    def _feature(self, buffer: bytearray) -> None:
        flags = feature.vfio_device_feature.unpack(buffer).flags
        number = flags & feature.VFIO_DEVICE_FEATURE_MASK
        if number not in self.features:
            raise CallError("VFIO_DEVICE_FEATURE", errno.ENOTTY)
        if not flags & feature.VFIO_DEVICE_FEATURE_PROBE:
            buffer[8:] = self.features[number].ljust(len(buffer) - 8, b"\0")

    def _set_irqs(self, argument: bytearray) -> int:
        wanted = uapi.vfio_irq_set.unpack(argument)
        data = bytes(argument[uapi.vfio_irq_set.size_of :])
        index, vectors = wanted.index, range(wanted.start, wanted.start + wanted.count)
        enabled = {i for i, _ in self.eventfds if i <= uapi.VFIO_PCI_MSIX_IRQ_INDEX}
        if (
            index >= len(self.irqs)
            or vectors.stop > self.irqs[index].vectors
            or (index <= uapi.VFIO_PCI_MSIX_IRQ_INDEX and enabled - {index})
        ):
            raise CallError("VFIO_DEVICE_SET_IRQS", errno.EINVAL)
        if wanted.flags & uapi.VFIO_IRQ_SET_ACTION_TRIGGER:
            if wanted.flags & uapi.VFIO_IRQ_SET_DATA_EVENTFD:
                for place, vector in enumerate(vectors):
                    fd = int.from_bytes(data[4 * place : 4 * place + 4], "little", signed=True)
                    old = self.eventfds.pop((index, vector), None)
                    if old is not None:
                        os.close(old)
                    if fd >= 0:
                        self.eventfds[index, vector] = os.dup(fd)
            elif not vectors:
                for key in [key for key in self.eventfds if key[0] == index]:
                    os.close(self.eventfds.pop(key))
                self.masked.discard(index)
            else:
                for vector in vectors:
                    if (index, vector) not in self.eventfds:
                        raise CallError("VFIO_DEVICE_SET_IRQS", errno.EINVAL)
                    if not self.deaf:
                        os.eventfd_write(self.eventfds[index, vector], 1)
        elif index != uapi.VFIO_PCI_INTX_IRQ_INDEX:
            raise CallError("VFIO_DEVICE_SET_IRQS", errno.ENOTTY)
        elif wanted.flags & uapi.VFIO_IRQ_SET_ACTION_MASK:
            self.masked.add(index)
        else:
            self.masked.discard(index)
        return 0


class FakeClient:
    """What a keeper keeps; ``groups`` are those that its container holds."""

    def __init__(self, groups: Iterable[int] = ()) -> None:
        self.fds: dict[str, int] = {}
        self.groups = tuple(groups)
        self.record: dict[str, Any] = {}
        self.answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """As the keeper's."""

    def show(self) -> dict[str, Any]:
        return self.record

    def call(self, op: str, fields: Mapping[str, Any] | None = None) -> Any:
        return Message(self.answers[op](fields or {}))

    def descriptors(self) -> dict[str, int]:
        return {name: os.dup(0) for name in ("container", *(f"group-{group}" for group in self.groups))}

    def keep(self, name: str, fd: int) -> None:
        if name in self.fds:
            os.close(self.fds[name])
        self.fds[name] = os.dup(fd)

    def kept(self, prefix: str) -> dict[str, int]:
        return {name: os.dup(fd) for name, fd in self.fds.items() if name.startswith(prefix)}

    def drop(self, prefix: str) -> None:
        for name in [name for name in self.fds if name.startswith(prefix)]:
            os.close(self.fds.pop(name))


def here(work: Callable[[], Any], timeout: float, *, leave: bool = False) -> Any:
    """bounded.call without a child process."""
    return work()


def install(monkeypatch: pytest.MonkeyPatch, device: FakeDevice) -> None:
    """Every ioctl of this process goes to the device."""
    monkeypatch.setattr(fcntl, "ioctl", device.ioctl)
    monkeypatch.setattr(bounded, "call", here)


def open_for_commands(
    monkeypatch: pytest.MonkeyPatch, device: FakeDevice, client: FakeClient, temporary: bool
) -> None:
    """Commands find the device in an open container, or open it for themselves (``temporary``)."""

    @contextmanager
    def opened(machine: Any, found: Any, container: str | None = None, **rest: Any) -> Iterator[Any]:
        yield ops_device.OpenDevice(found.address, device.fd, client, temporary)  # type: ignore[arg-type]

    install(monkeypatch, device)
    monkeypatch.setattr(ops_device, "opened", opened)
