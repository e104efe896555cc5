"""The regions of an open device: found by name, checked, read and written with a deadline (floor 4)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

from vfioctl.errors import KernelRefusal, NotFound, UsageError, VfioctlError, visible
from vfioctl.host import region as access
from vfioctl.host import vfio_words as words
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio_device import RegionInfo, device_get_info, device_get_region_info
from vfioctl.ops.asking import ask, call
from vfioctl.ops.explained import explained
from vfioctl.policy import pci_config
from vfioctl.policy.refusals import State, explain
from vfioctl.uapi import vfio

T = TypeVar("T")


class Region(NamedTuple):
    """A region of a device; ``space`` is what a PCI BAR decodes: "memory" or "io", None for all others."""

    number: int
    name: str
    info: RegionInfo
    space: str | None = None


class Write(NamedTuple):
    """``data`` stored from ``offset`` on by accesses of ``width`` bytes."""

    offset: int
    width: int
    data: bytes


class Regions:
    """The regions of the device ``name`` behind the descriptor ``fd``. Every method raises VfioctlError; every access
    ends within ``timeout`` seconds."""

    def __init__(self, name: str, fd: int, timeout: float) -> None:
        self.name = name
        self.fd = fd
        self.timeout = timeout

    @cached_property
    def all(self) -> tuple[Region, ...]:
        """Every region that the device has, by index; one of size 0 is not implemented."""
        with explained(State(device=self.name)):
            device = device_get_info(self.fd)
            infos = {
                number: info
                for number in range(device.num_regions)
                if (info := self._info(number)) is not None
            }
        names = {number: words.region_name(device.flags, number, info) for number, info in infos.items()}
        config = next((infos[number] for number, name in names.items() if name == "config"), None)
        bars = b""
        if config is not None and config.size >= 64:
            bars = ask(self.name, lambda: access.copy(self.fd, config, 0x10, 24), self.timeout)
        return tuple(
            Region(number, names[number], info, _space(names[number], info, bars))
            for number, info in infos.items()
        )

    def find(self, text: str) -> Region:
        """The region that ``text`` calls by its name or number. NotFound when there is none, or it is empty."""
        for region in self.all:
            if text.lower() in (region.name, str(region.number)):
                if region.info.size:
                    return region
                raise NotFound(
                    f"{self.name} has no {region.name}: the region is empty",
                    hint=f"it has {self._names()}",
                    subject=self.name,
                    code="no-such-region",
                )
        raise NotFound(
            f"{self.name} has no region {visible(text)!r}",
            hint=f"it has {self._names()}",
            subject=self.name,
            code="no-such-region",
        )

    def read(self, region: Region, offset: int, width: int, count: int = 1) -> bytes:
        """``count`` accesses of ``width`` bytes, as the device sees their bytes."""
        self.check(region, offset, width, count * width, vfio.VFIO_REGION_INFO_FLAG_READ)
        return self._got(region, lambda: access.read(self.fd, region.info, offset, width, count))

    def copy(self, region: Region, offset: int, size: int) -> bytes:
        """``size`` bytes by whatever accesses are fast."""
        self.check(region, offset, 1, size, vfio.VFIO_REGION_INFO_FLAG_READ)
        return self._got(region, lambda: access.copy(self.fd, region.info, offset, size))

    def write(self, region: Region, writes: Sequence[Write]) -> None:
        """Stores bytes at offsets, one after the other."""
        for offset, width, data in writes:
            self.check(region, offset, width, len(data), vfio.VFIO_REGION_INFO_FLAG_WRITE)

        def work() -> None:
            for offset, width, data in writes:
                access.write(self.fd, region.info, offset, width, data)

        self._access(region, work)

    def config(self) -> bytes:
        """PCI configuration space. NotFound for a device of another bus."""
        region = self.find("config")
        return self.copy(region, 0, region.info.size)

    def check(self, region: Region, offset: int, width: int, size: int, flag: int) -> None:
        """Raises UsageError unless the access lies in the region, is aligned, and is one that the region takes."""
        what = f"{region.name} of {self.name}"
        if not region.info.flags & flag:
            verb = "read" if flag == vfio.VFIO_REGION_INFO_FLAG_READ else "written"
            raise UsageError(f"{what} cannot be {verb}", subject=self.name, code="region-access")
        if offset % width or size % width:
            raise UsageError(
                f"an access of {8 * width} bits at {offset:#x} is not aligned",
                hint=f"take a multiple of {width}, or --width {8 * (offset & -offset)}"
                if offset % width
                else f"the size must be a multiple of {width} bytes",
                subject=self.name,
                code="misaligned",
            )
        if offset + size > region.info.size:
            raise UsageError(
                f"{what} has {region.info.size:#x} bytes: {size} from {offset:#x} on end outside",
                subject=self.name,
                code="outside-region",
            )

    def _got(self, region: Region, work: Callable[[], bytes]) -> bytes:
        data = self._access(region, work)
        if region.info.type is None and data.count(0xFF) == len(data):
            # What nobody answers reads as ones; whether that is so, configuration space tells.
            why = self._unanswered(region)
            if why is not None:
                raise why
        return data

    def _access(self, region: Region, work: Callable[[], T]) -> T:
        try:
            return call(self.name, work, self.timeout)
        except CallError as error:
            why = self._unanswered(region)
            if why is not None:
                why.errno = error.errno
                raise why from error
            raise explain(error.call, error.errno or 0, State(device=self.name)) from error

    def _unanswered(self, region: Region) -> VfioctlError | None:
        """Why nobody answers accesses to a region of a PCI device, as far as its configuration space tells."""
        config = next((each for each in self.all if each.name == "config" and each.info.size >= 64), None)
        if config is None:
            return None
        try:
            start = call(self.name, lambda: access.copy(self.fd, config.info, 0, 64), self.timeout)
        except CallError:
            return None
        decoding = pci_config.decoding(start)
        if decoding.gone:
            return KernelRefusal(
                f"{self.name} does not answer: all bits of its configuration space are set",
                hint="it has been unplugged, or its link is down, or it does not wake from D3cold; see dmesg",
                subject=self.name,
                code="device-gone",
            )
        off = (region.space == "memory" or region.name == "rom") and not decoding.memory
        if off or (region.space == "io" and not decoding.io):
            what, bit = ("memory", 2) if region.space != "io" else ("I/O ports", 1)
            return KernelRefusal(
                f"{region.name} of {self.name} does not answer: the device decodes no {what} now (COMMAND)",
                hint=f"vfioctl region write {self.name} config COMMAND {bit} --mask {bit}",
                subject=self.name,
                code="decoding-off",
            )
        return None

    def _info(self, number: int) -> RegionInfo | None:
        try:
            return device_get_region_info(self.fd, number)
        except CallError as error:
            if error.errno != errno.EINVAL:  # VGA, of a device that has none
                raise
            return None

    def _names(self) -> str:
        return ", ".join(region.name for region in self.all if region.info.size)


def _space(name: str, info: RegionInfo, bars: bytes) -> str | None:
    if not (name.startswith("bar") and bars and info.size):
        return None
    return "io" if bars[4 * int(name[3:])] & 1 else "memory"
