"""Names of hardware from udev's database. The home of ctypes: pyudev does not wrap this part of libudev."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any


class HardwareDatabase:
    """libudev's ``udev_hwdb``; without libudev, or without a database, every answer is empty."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}
        self._library: Any = None
        self._udev: Any = None
        self._hwdb: Any = None
        try:
            library: Any = ctypes.CDLL("libudev.so.1")
        except OSError:
            return
        for name in (
            "udev_new",
            "udev_hwdb_new",
            "udev_hwdb_get_properties_list_entry",
            "udev_list_entry_get_next",
        ):
            getattr(library, name).restype = ctypes.c_void_p
        library.udev_hwdb_new.argtypes = [ctypes.c_void_p]
        library.udev_hwdb_get_properties_list_entry.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_uint,
        ]
        library.udev_list_entry_get_next.argtypes = [ctypes.c_void_p]
        for name in ("udev_list_entry_get_name", "udev_list_entry_get_value"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        for name in ("udev_unref", "udev_hwdb_unref"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_void_p
        self._library = library
        self._udev = library.udev_new()
        if self._udev:
            self._hwdb = library.udev_hwdb_new(self._udev)

    def __enter__(self) -> HardwareDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hwdb:
            self._library.udev_hwdb_unref(self._hwdb)
        if self._udev:
            self._library.udev_unref(self._udev)
        self._hwdb = self._udev = None

    def look_up(self, modalias: str) -> dict[str, str]:
        """The properties that the database has for a modalias (``ID_VENDOR_FROM_DATABASE`` and so on)."""
        if not self._hwdb or not modalias:
            return {}
        if modalias not in self._names:
            entry = self._library.udev_hwdb_get_properties_list_entry(self._hwdb, modalias.encode(), 0)
            found: dict[str, str] = {}
            while entry:
                name = self._library.udev_list_entry_get_name(entry)
                value = self._library.udev_list_entry_get_value(entry)
                found[name.decode(errors="replace")] = (value or b"").decode(errors="replace")
                entry = self._library.udev_list_entry_get_next(entry)
            self._names[modalias] = found
        return self._names[modalias]
