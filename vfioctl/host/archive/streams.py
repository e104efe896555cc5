"""What an archive decompresses to, bounded: by its size, by the time that it takes, by how far it swells."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from io import FileIO

from vfioctl.host.archive.entry import RATIO, RATIO_FLOOR, TOTAL, BadArchive
from vfioctl.host.bounded import readable

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_STEP = 1 << 18
#: How large a window zstd may ask for; its own default limit when it decompresses is 128 MiB.
_MEMORY = "-M128MB"


class Stream:
    """The bytes of one archive, in order."""

    def __init__(self, pieces: Iterator[bytes], size: int, timeout: float) -> None:
        self._pieces = pieces
        self._left = min(TOTAL, max(RATIO_FLOOR, RATIO * size))
        self._deadline = time.monotonic() + timeout
        self._data = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """So many bytes. Raises BadArchive at an early end, or past a limit."""
        while len(self._data) - self._at < size and (piece := self._next()):
            self._data = self._data[self._at :] + piece
            self._at = 0
        end = self._at + size
        if len(self._data) < end:
            raise BadArchive("it ends early: it is damaged, or was not copied whole")
        found, self._at = self._data[self._at : end], end
        return found

    def finish(self) -> None:
        """Reads what comes after the last member, so that damage is noticed: checksums stand at the end."""
        while self._next():
            pass

    def _next(self) -> bytes:
        if time.monotonic() > self._deadline:
            raise BadArchive("it takes too long to decompress (--timeout)")
        try:
            piece = next(self._pieces, b"")
        except (zlib.error, EOFError, subprocess.TimeoutExpired) as error:
            raise BadArchive(f"it is damaged: {error}") from error
        self._left -= len(piece)
        if self._left < 0:
            raise BadArchive("it decompresses to more than any snapshot: it is meant to fill the disk")
        return piece


@contextlib.contextmanager
def decompressed(file: FileIO, timeout: float) -> Iterator[Stream]:
    """The contents of an archive, by what it begins with: gzip, zstd, or not compressed."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(ZSTD))
    file.seek(0)
    if start == ZSTD:
        with _unzstd(file, timeout) as pieces:
            yield Stream(pieces, size, timeout)
    elif start.startswith(GZIP):
        yield Stream(_gunzip(file), size, timeout)
    else:
        yield Stream(iter(lambda: file.read(_STEP), b""), size, timeout)


def zstd() -> str | None:
    """The path of the program zstd; None where it is not installed."""
    return shutil.which("zstd", path=_PATH)


def _gunzip(file: FileIO) -> Iterator[bytes]:
    """Never more than a step at once."""
    engine = zlib.decompressobj(wbits=31)
    while not engine.eof:
        data = engine.unconsumed_tail or file.read(_STEP)
        if not data:
            raise EOFError("the compressed data end early")
        if piece := engine.decompress(data, _STEP):
            yield piece
    if engine.unused_data or file.read(1):
        raise EOFError("something comes after the compressed data")


@contextlib.contextmanager
def _unzstd(file: FileIO, timeout: float) -> Iterator[Iterator[bytes]]:
    program = zstd()
    if program is None:
        raise BadArchive("it is compressed with zstd, which is not installed here")
    child = subprocess.Popen(
        [program, "-dcq", _MEMORY],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        yield _output(child, child.stdout.fileno(), timeout)
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def _output(child: subprocess.Popen[bytes], fd: int, timeout: float) -> Iterator[bytes]:
    while readable(fd, timeout):
        piece = os.read(fd, _STEP)
        if piece:
            yield piece
        elif child.wait(timeout) == 0:
            return
        else:
            raise EOFError("zstd cannot decompress it")
    raise EOFError("zstd does not answer")
