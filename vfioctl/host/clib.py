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


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies in the process's address space. Nothing else in the standard library tells."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


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
