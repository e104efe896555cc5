"""The containers of POWER, whose addresses are those of windows: sPAPR TCE, version 1 and 2.

Source of what is said about the kernel: drivers/vfio/vfio_iommu_spapr_tce.c, as of Linux 6.12 and 7.2.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from vfioctl.errors import NotFound
from vfioctl.host import memory, spapr, vfio
from vfioctl.host.ioctl import CallError
from vfioctl.ops.backends import Member, Offer, Piece
from vfioctl.ops.backends.type1 import PROTECTIONS, ContainerBackend
from vfioctl.ops.explained import explained
from vfioctl.policy.iova import page_sizes
from vfioctl.policy.sizes import format_iova
from vfioctl.policy.windows import check_window
from vfioctl.uapi import vfio as uapi

#: The kernel makes the default window in such pages (tce_iommu_create_default_window), and has no call to ask.
DEFAULT_PAGE = 4096


class Window(NamedTuple):
    """Addresses that are translated, in bytes: from ``start`` on, in pages of ``page_size``, by a table of that many
    levels."""

    start: int
    size: int
    page_size: int
    levels: int

    @property
    def end(self) -> int:
        """The last address."""
        return self.start + self.size - 1

    def record(self) -> dict[str, int]:
        """What the JSON record of a container says of it."""
        return {"start": self.start, "end": self.end, "page_size": self.page_size, "levels": self.levels}


class Spapr(ContainerBackend):
    """What both versions have in common. The kernel replaces a mapping by one over it without a word, and lets the
    process use the container only that mapped first."""

    def __init__(self, name: str, container: int, dev: str = "/dev") -> None:
        super().__init__(name, container, dev)
        self.windows: list[Window] = []
        self.dynamic: spapr.DynamicWindows | None = None

    def join(self, member: Member) -> None:
        super().join(member)
        if len(self.groups) == 1:
            with explained(self.state):
                info = spapr.tce_get_info(self.container)
            self.windows = [Window(info.window_start, info.window_size, DEFAULT_PAGE, 1)]
            self.dynamic = info.dynamic

    def offer(self) -> Offer:
        bitmap = 0
        for window in self.windows:
            bitmap |= window.page_size
        ranges = tuple((window.start, window.end) for window in self.windows)
        return Offer(bitmap, ranges, None, tuple(window.page_size for window in self.windows))

    def details(self) -> Mapping[str, Any]:
        dynamic = self.dynamic
        return {
            **super().details(),
            "windows": [window.record() for window in self.windows],
            "window_page_sizes": dynamic and list(page_sizes(dynamic.page_sizes)),
            "max_windows": dynamic and dynamic.windows,
            "max_levels": dynamic and dynamic.levels,
        }


class SpaprV1(Spapr):
    """One group, and the default window, which is charged as a whole as long as anything is mapped in it."""

    TYPES = {"spapr-v1": uapi.VFIO_SPAPR_TCE_IOMMU}

    def __init__(self, name: str, container: int, dev: str = "/dev") -> None:
        super().__init__(name, container, dev)
        self._buffers: set[int] = set()

    def offer(self) -> Offer:
        return super().offer()._replace(charge=0 if self._buffers else self.windows[0].size)

    def prepare(self, vaddr: int, size: int) -> None:
        if not self._buffers:
            with explained(self.state._replace(size=self.windows[0].size)):
                spapr.enable(self.container)
        self._buffers.add(vaddr)

    def release(self, vaddr: int, size: int) -> None:
        if vaddr in self._buffers:
            self._buffers.remove(vaddr)
            if not self._buffers:
                with explained(self.state):
                    spapr.disable(self.container)


class SpaprV2(Spapr):
    """Memory is registered, which pins and charges it, before it is mapped; windows are made and removed."""

    TYPES = {"spapr-v2": uapi.VFIO_SPAPR_TCE_v2_IOMMU}

    def __init__(self, name: str, container: int, dev: str = "/dev") -> None:
        super().__init__(name, container, dev)
        #: The size of what is registered, by its address.
        self._registered: dict[int, int] = {}
        #: What is mapped, by IOVA: address, size and protection.
        self._mapped: dict[int, tuple[int, int, str]] = {}

    def join(self, member: Member) -> None:
        if self.groups and self.windows and not self._mapped:
            self._make_default_window()
        super().join(member)

    def _make_default_window(self) -> None:
        """The kernel makes the default window when it is used first. A group that cannot share it, as in a partition
        (arch/powerpc/platforms/pseries/iommu.c, spapr_tce_set_window), is to be refused when it joins and not then."""
        with memory.make(memory.ANONYMOUS, mmap.PAGESIZE) as page, suppress(CallError):
            spapr.register_memory(self.container, page.address, mmap.PAGESIZE)
            try:
                vfio.iommu_unmap_dma(self.container, self.windows[0].start, self.windows[0].page_size)
            finally:
                spapr.unregister_memory(self.container, page.address, mmap.PAGESIZE)

    def leave(self, group: int) -> None:
        super().leave(group)
        if self.groups:
            # The kernel has cleared the windows, though they are those of the others, too (tce_iommu_detach_group).
            with explained(self.state):
                for iova, (vaddr, size, prot) in self._mapped.items():
                    vfio.iommu_map_dma(self.container, vaddr, iova, size, PROTECTIONS[prot])

    def prepare(self, vaddr: int, size: int) -> None:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with explained(self.state._replace(size=size)):
            spapr.register_memory(self.container, vaddr, size)
        self._registered[vaddr] = size

    def release(self, vaddr: int, size: int) -> None:
        if vaddr in self._registered:
            with explained(self.state):
                spapr.unregister_memory(self.container, vaddr, self._registered[vaddr])
            del self._registered[vaddr]

    def map(self, pieces: Iterable[Piece], prot: str) -> None:
        super().map(self._noted(pieces, prot), prot)

    def _noted(self, pieces: Iterable[Piece], prot: str) -> Iterator[Piece]:
        for piece in pieces:
            yield piece
            # The next one is asked for: this one is mapped.
            vaddr, iova, size = piece
            self._mapped[iova] = (vaddr, size, prot)

    def unmap(self, iova: int, size: int) -> int:
        unmapped = super().unmap(iova, size)
        _, first, _ = self._mapped.pop(iova, (0, 0, ""))
        if first < size:
            for each in [each for each in self._mapped if iova <= each < iova + size]:
                del self._mapped[each]
        return unmapped

    def create_window(self, page_size: int, size: int, levels: int) -> Window:
        """A further window. Raises UsageError for one that cannot be, and what the kernel says."""
        check_window(self.dynamic or spapr.DynamicWindows(0, 0, 0), page_size, size, levels)
        table = size // page_size * 8  # the kernel charges it
        with explained(self.state._replace(size=table)):
            start = spapr.tce_create(self.container, page_size.bit_length() - 1, size, levels)
        window = Window(start, size, page_size, levels)
        self.windows.append(window)
        return window

    def find_window(self, start: int) -> Window:
        """The window that starts there. Raises NotFound."""
        for window in self.windows:
            if window.start == start:
                return window
        raise NotFound(
            f"no window starts at {format_iova(start)}",
            hint="vfioctl container show NAME lists the windows",
            subject=format_iova(start),
            code="window-invalid",
        )

    def remove_window(self, window: Window) -> None:
        """Removes a window in which nothing is mapped."""
        with explained(self.state):
            spapr.tce_remove(self.container, window.start)
        self.windows.remove(window)
