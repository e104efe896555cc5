"""Names of hardware from udev's database, through libudev: pyudev does not wrap this part of it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from vfioctl.host.clib import POINTER, STRING, UINT, library
from vfioctl.host.recorded import recorded

_LIBUDEV: dict[str, tuple[Any, list[Any]]] = {
    "udev_new": (POINTER, []),
    "udev_unref": (POINTER, [POINTER]),
    "udev_hwdb_new": (POINTER, [POINTER]),
    "udev_hwdb_unref": (POINTER, [POINTER]),
    "udev_hwdb_get_properties_list_entry": (POINTER, [POINTER, STRING, UINT]),
    "udev_list_entry_get_next": (POINTER, [POINTER]),
    "udev_list_entry_get_name": (STRING, [POINTER]),
    "udev_list_entry_get_value": (STRING, [POINTER]),
}


class HardwareDatabase:
    """libudev's ``udev_hwdb``; without libudev, or without a database, every answer is empty. For a snapshot the
    answers of the host's that it was taken on."""

    def __init__(self, root: str = "/") -> None:
        record = recorded(root)
        self._names = {} if record is None else {key: dict(names) for key, names in record.names.items()}
        self._library: Any = library("libudev.so.1", _LIBUDEV)
        self._udev = self._library.udev_new() if self._library and record is None else None
        self._hwdb = self._library.udev_hwdb_new(self._udev) if self._udev else None

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
        if self._hwdb and modalias and modalias not in self._names:
            self._names[modalias] = dict(self._query(modalias))
        return self._names.get(modalias, {})

    def _query(self, modalias: str) -> list[tuple[str, str]]:
        found = []
        entry = self._library.udev_hwdb_get_properties_list_entry(
            self._hwdb, modalias.encode(errors="surrogateescape"), 0
        )
        while entry:
            name = self._library.udev_list_entry_get_name(entry)
            value = self._library.udev_list_entry_get_value(entry) or b""
            found.append((name.decode(errors="replace"), value.decode(errors="replace")))
            entry = self._library.udev_list_entry_get_next(entry)
        return found
