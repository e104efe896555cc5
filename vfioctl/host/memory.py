"""Memory to map: page-aligned anonymous buffers, and what the caller may lock (floor 2)."""

from __future__ import annotations

import errno
import mmap
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self

from vfioctl.host.ioctl import CallError

#: From 5.14 on; the mmap module has no name for it in Python 3.11 (include/uapi/asm-generic/mman-common.h).
MADV_POPULATE_WRITE = 23

#: Bit of CAP_IPC_LOCK in the capability masks (include/uapi/linux/capability.h).
CAP_IPC_LOCK = 14

#: Bytes populated between two calls of a progress callback: some tens of milliseconds of work.
PREFAULT_STEP = 64 << 20


class Memlock(NamedTuple):
    """What this process may pin: bytes; ``limit`` None means unlimited.

    ``cap_ipc_lock`` is the capability as the kernel counts it: held in the initial user namespace.
    """

    limit: int | None
    locked: int
    cap_ipc_lock: bool

    def allows(self, size: int) -> bool:
        """Whether ``size`` more bytes stay below the limit, going by what is known now."""
        return self.cap_ipc_lock or self.limit is None or self.locked + size <= self.limit


class Buffer:
    """``size`` bytes of private anonymous memory, zeroed, at an ``address`` aligned to ``alignment`` bytes.

    A context manager. The memory is kept out of child processes: after a fork, copy-on-write would separate
    the pages that a device writes from those that the parent sees.
    """

    def __init__(self, size: int, alignment: int = mmap.PAGESIZE) -> None:
        """Raise :class:`CallError` ("mmap") when there is no room for it."""
        spare = alignment if alignment > mmap.PAGESIZE else 0
        try:
            self._map = mmap.mmap(-1, size + spare, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OverflowError as error:
            raise CallError("mmap", errno.ENOMEM) from error
        except OSError as error:
            raise CallError("mmap", error.errno or 0) from error
        start = _address(self._map)
        self._offset = -start % alignment
        self.address = start + self._offset
        self.size = size
        self._map.madvise(mmap.MADV_DONTFORK)
        # Large pages make populating and pinning faster; a kernel built without them answers EINVAL.
        with suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._map.close()

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; IndexError outside the buffer."""
        return self._map[self._inside(offset, size) : self._offset + offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Store ``data`` at ``offset``; IndexError outside the buffer."""
        self._map[self._inside(offset, len(data)) : self._offset + offset + len(data)] = data

    def prefault(self, progress: Callable[[int], None] | None = None, step: int = PREFAULT_STEP) -> None:
        """Give every page memory, telling ``progress`` the bytes done after every ``step`` bytes.

        Pinning does that too, but in one call that nobody can watch or interrupt.
        Raises :class:`CallError` ("madvise") when memory runs out.
        """
        for done in range(0, self.size, step):
            self._populate(done, min(step, self.size - done))
            if progress is not None:
                progress(min(done + step, self.size))

    def _populate(self, offset: int, size: int) -> None:
        try:
            self._map.madvise(MADV_POPULATE_WRITE, self._offset + offset, size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise CallError("madvise", error.errno or 0) from error
            touched = slice(self._offset + offset, self._offset + offset + size, mmap.PAGESIZE)
            self._map[touched] = self._map[touched]

    def _inside(self, offset: int, size: int) -> int:
        if offset < 0 or offset + size > self.size:
            raise IndexError(f"{size} bytes at {offset} are outside a buffer of {self.size}")
        return self._offset + offset


def memlock(proc: str = "/proc/self") -> Memlock:
    """This process's limit of locked memory and what is charged to it (VmLck and CapEff of its status)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    with open(f"{proc}/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    capable = bool(int(fields.get("CapEff", "0"), 16) >> CAP_IPC_LOCK & 1)
    return Memlock(
        limit=None if soft == resource.RLIM_INFINITY else soft,
        locked=int(fields.get("VmLck", "0 kB").split()[0]) * 1024,
        cap_ipc_lock=capable and _in_initial_user_namespace(proc),
    )


def _in_initial_user_namespace(proc: str) -> bool:
    # The initial namespace maps all 2^32 - 1 user ids onto themselves, and a container rarely does.
    try:
        with open(f"{proc}/uid_map", encoding="ascii") as file:
            return file.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True


def available(meminfo: str = "/proc/meminfo") -> int | None:
    """Bytes that can be had without pushing anybody out (MemAvailable); None when not told."""
    with suppress(OSError), open(meminfo, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _address(memory: mmap.mmap) -> int:
    from vfioctl.host.clib import address_of

    return address_of(memory)
