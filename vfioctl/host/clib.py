"""What only C can tell. The home of ctypes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from typing import Any

POINTER = ctypes.c_void_p
STRING = ctypes.c_char_p
INT = ctypes.c_int
UINT = ctypes.c_uint
ULONG = ctypes.c_ulong
#: The same on all architectures that Python's mmap module knows (include/uapi/asm-generic/mman-common.h).
MAP_FIXED = 0x10


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies in the process's address space. Nothing else in the standard library tells."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def map_fixed(address: int, size: int, prot: int, flags: int, fd: int, offset: int) -> None:
    """mmap(2) with MAP_FIXED: whatever this process had at ``address`` is replaced. Raises OSError."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = POINTER
    function.argtypes = [POINTER, ctypes.c_size_t, INT, INT, INT, ctypes.c_long]
    if function(address, size, prot, flags | MAP_FIXED, fd, offset) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def library(name: str | None, functions: Mapping[str, tuple[Any, list[Any]]]) -> Any:
    """A shared library (None: the C library) with its functions declared as name -> (result, arguments), or None when
    it is not there."""
    try:
        loaded = ctypes.CDLL(name)
    except OSError:
        return None
    for function, (result, arguments) in functions.items():
        entry = getattr(loaded, function)
        entry.restype = result
        entry.argtypes = arguments
    return loaded
