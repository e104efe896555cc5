"""Bitmaps of dirty pages, which the kernel fills in by address (floor 2)."""

from __future__ import annotations

import sys
from array import array


class Bitmap:
    """A bit for each page of ``page_size`` in ``size`` bytes, in words of 64 bits; the address does not change."""

    def __init__(self, size: int, page_size: int) -> None:
        pages = -(-size // page_size)
        self._words = array("Q", bytes(-(-pages // 64) * 8))
        self.address, _ = self._words.buffer_info()
        self.size = len(self._words) * 8

    def read(self) -> bytes:
        """The bits: page n is bit n % 8 of byte n // 8, whatever the machine's byte order."""
        words = self._words[:]
        if sys.byteorder == "big":
            words.byteswap()
        return words.tobytes()
