"""Memory of each kind, mapped into this process at an address that suits an IOMMU's pages."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Self

from vfioctl.host.files import read
from vfioctl.host.ioctl import CallError, open_node

#: From 5.14 on; the mmap module has no names for them in Python 3.11 (include/uapi/asm-generic/mman-common.h).
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23

#: Bytes populated between two steps of a caller: some tens of milliseconds of work.
PREFAULT_STEP = 64 << 20


class Source(NamedTuple):
    """Where memory comes from. ``kind`` is one of

    - ``anonymous``: private and zeroed, in large pages where the kernel has them at hand;
    - ``memfd``: the same, shared: it has a descriptor that other programs can map;
    - ``hugepages``: a memfd out of the pool of huge pages of ``page_size`` bytes;
    - ``file``: the bytes of the file ``fd`` from ``offset`` on (a multiple of its pages), shared, so that what
      devices write ends up in the file. A regular file, also of tmpfs or hugetlbfs, or a memfd.
    """

    kind: str = "anonymous"
    page_size: int | None = None
    offset: int = 0
    fd: int | None = None


ANONYMOUS = Source()


class FileFacts(NamedTuple):
    """What an open file is: whether a regular one, its size in bytes, whether it is open for writing, the type of its
    file system as /proc/self/mountinfo tells it (None where it is not mounted in sight, as with a memfd), and the bytes
    of the pages that it consists of in memory."""

    regular: bool
    size: int
    writable: bool
    file_system: str | None
    page_size: int


class Memory:
    """``size`` bytes at ``address``, a context manager; ``fd`` is the file behind it, or None.

    Kept out of child processes: after a fork, copy-on-write would separate the pages that a device writes from
    those that the parent sees.
    """

    def __init__(self, mapped: mmap.mmap, start: int, size: int, source: Source, writable: bool) -> None:
        """For :func:`make`. ``start`` is where the memory begins in what is mapped."""
        self._map = mapped
        self._start = start
        self._populate = MADV_POPULATE_WRITE if writable else MADV_POPULATE_READ
        self.address = _address(mapped) + start
        self.size = size
        self.source = source
        self.fd = source.fd
        # A file may be cut short by anybody: reading it here would end this process (SIGBUS), the kernel's own
        # reading is an error only.
        self._own = None if self.fd is None else open_node("/proc/self/mem")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; what a device has pinned stays until it is unmapped."""
        if not self._map.closed:
            self._map.close()
            for fd in (self.fd, self._own):
                if fd is not None:
                    os.close(fd)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on. IndexError outside; CallError ("read") where a file has become shorter."""
        start = self._inside(offset, size)
        if self._own is None:
            return self._map[start : start + size]
        data = b""
        while len(data) < size:
            try:
                data += os.pread(self._own, size - len(data), self.address + offset + len(data))
            except OSError as error:
                raise CallError("read", error.errno or 0) from error
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store ``data`` at ``offset``. IndexError outside; CallError ("write") where a file has become shorter or is
        open for reading only."""
        start = self._inside(offset, len(data))
        if self._own is None:
            self._map[start : start + len(data)] = bytes(data)
            return
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self._own, memoryview(data)[done:], self.address + offset + done)
            except OSError as error:
                raise CallError("write", error.errno or 0) from error

    def prefault(self, start: int = 0, size: int | None = None, step: int = PREFAULT_STEP) -> Iterator[int]:
        """Give every page of ``size`` bytes from ``start`` on memory (of all), ``step`` bytes at a time; yields
        the bytes done in all.

        Pinning does that too, but in one call that nobody can watch or interrupt. Raises CallError ("madvise") when
        memory runs out.
        """
        end = self.size if size is None else start + size
        for at in range(start, end, step):
            here = min(step, end - at)
            try:
                self._map.madvise(self._populate, self._start + at, here)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise CallError("madvise", error.errno or 0) from error
                self._touch(at, here)
            yield at + here - start

    def _touch(self, offset: int, size: int) -> None:
        # Before 5.14. Pages of files are left to the pinning, which cannot be killed by what is not there.
        if self._own is None:
            touched = slice(self._start + offset, self._start + offset + size, mmap.PAGESIZE)
            self._map[touched] = self._map[touched]

    def _inside(self, offset: int, size: int) -> int:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise IndexError(f"{size} bytes at {offset} are outside a buffer of {self.size}")
        return self._start + offset


def make(source: Source = ANONYMOUS, size: int = mmap.PAGESIZE, alignment: int = mmap.PAGESIZE) -> Memory:
    """``size`` bytes of ``source`` at an address that is a multiple of ``alignment`` (a power of two).

    The memory has its own copy of a file's descriptor. Raises :class:`CallError`: "mmap" (ENOMEM: no room, or too few
    huge pages; EACCES: the file is not open for reading; ENODEV: it cannot be mapped; EINVAL: the offset is not a
    multiple of its pages) or "memfd_create" (ENODEV: there are no huge pages of that size; ENOSYS).
    """
    if source.kind == "anonymous":
        memory = Memory(*_reserve(size, alignment), size, source, True)
        # Large pages make populating and pinning faster; a kernel built without them answers EINVAL.
        with suppress(OSError):
            memory._map.madvise(mmap.MADV_HUGEPAGE)
        return memory
    page = source.page_size or mmap.PAGESIZE
    length = -(-size // page) * page
    fd = _memfd(source.page_size, length) if source.fd is None else os.dup(source.fd)
    try:
        facts = file_facts(fd)
        page = max(page, facts.page_size)
        length = -(-size // page) * page
        mapped, start = _reserve(length, max(page, alignment))
        try:
            _map_file(mapped, start, length, facts.writable, fd, source.offset)
            return Memory(mapped, start, size, source._replace(fd=fd), facts.writable)
        except BaseException:
            mapped.close()
            raise
    except BaseException:
        os.close(fd)
        raise


def load() -> None:
    """Loads what making memory takes (ctypes), which is some milliseconds of work."""
    from vfioctl.host import clib  # noqa: F401


def file_facts(fd: int) -> FileFacts:
    """What the open file ``fd`` is. Raises OSError for a descriptor that is not open."""
    status = os.fstat(fd)
    info = dict(
        line.split(":", 1) for line in (read(f"/proc/self/fdinfo/{fd}") or "").split("\n") if ":" in line
    )
    access = int(info.get("flags", "0"), 8) & os.O_ACCMODE
    kind = _file_system(info.get("mnt_id", "").strip())
    # A memfd is mounted nowhere; only the blocks of its file system tell one of huge pages from another.
    memfd = kind is None and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
    large = os.fstatvfs(fd).f_bsize if memfd or kind == "hugetlbfs" else 0
    return FileFacts(
        regular=stat.S_ISREG(status.st_mode),
        size=status.st_size,
        writable=access == os.O_RDWR,
        file_system=kind,
        page_size=max(mmap.PAGESIZE, large),
    )


def _file_system(mount: str) -> str | None:
    for line in (read("/proc/self/mountinfo") or "").split("\n"):
        before, separator, after = line.partition(" - ")
        if separator and before.split(" ", 1)[0] == mount:
            return after.split(" ", 1)[0]
    return None


def _memfd(page_size: int | None, size: int) -> int:
    flags = os.MFD_CLOEXEC
    if page_size is not None:
        flags |= os.MFD_HUGETLB | (page_size.bit_length() - 1) << os.MFD_HUGE_SHIFT
    try:
        fd = os.memfd_create("vfioctl", flags)
    except OSError as error:
        raise CallError("memfd_create", error.errno or 0) from error
    try:
        os.ftruncate(fd, size)
    except (OSError, OverflowError) as error:
        os.close(fd)
        raise CallError("mmap", errno.ENOMEM) from error
    return fd


def _reserve(size: int, alignment: int) -> tuple[mmap.mmap, int]:
    """Anonymous memory with room for ``size`` bytes at an aligned address; where that is, from the beginning."""
    spare = alignment if alignment > mmap.PAGESIZE else 0
    try:
        mapped = mmap.mmap(-1, size + spare, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OverflowError, ValueError) as error:
        raise CallError("mmap", errno.ENOMEM) from error
    except OSError as error:
        raise CallError("mmap", error.errno or 0) from error
    mapped.madvise(mmap.MADV_DONTFORK)
    return mapped, -_address(mapped) % alignment


def _map_file(mapped: mmap.mmap, start: int, size: int, writable: bool, fd: int, offset: int) -> None:
    """Puts the file's bytes in the place of ``size`` bytes of what is mapped: the mmap module cannot ask for an
    address, and the kernel aligns a file to its own pages only."""
    from vfioctl.host.clib import map_fixed

    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        map_fixed(_address(mapped) + start, size, prot, mmap.MAP_SHARED, fd, offset)
    except OSError as error:
        raise CallError("mmap", error.errno or 0) from error
    mapped.madvise(mmap.MADV_DONTFORK)


def _address(memory: mmap.mmap) -> int:
    from vfioctl.host.clib import address_of

    return address_of(memory)
