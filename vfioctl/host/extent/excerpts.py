"""Of files that hold much more than the looking commands read, the part that they read. Pure.

What is left out cannot be published by accident: serial numbers in udev's database, passwords in the files of libvirt,
where the kernel lies in memory.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping

from vfioctl.host.usage.claims import source_addresses
from vfioctl.host.usage.display import FIRMWARE

_UDEV = ("ID_FS_TYPE", "ID_PART_TABLE_TYPE")
_ALIASES = ("vfio_pci:", "vfio-reset:")


def excerpt(path: str, data: bytes) -> bytes:
    """What of a file is wanted; all of one that is not named here."""
    for pattern, cut in EXCERPTS.items():
        if fnmatch.fnmatchcase(path, pattern):
            return cut(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    return data


def _without_counts(text: str) -> str:
    """/proc/interrupts without how many have come on which processor."""
    return re.sub(r"^(\s*\S+:)(?:[ ]+[0-9]+)+(?=\s|$)", r"\1 0", text, flags=re.MULTILINE)


def _frame_buffers(text: str) -> str:
    """The lines of /proc/iomem that are the firmware's frame buffer, and those around them."""
    kept: list[str] = []
    around: list[str] = []
    for line in text.split("\n"):
        depth = (len(line) - len(line.lstrip(" "))) // 2
        around[depth:] = [line]
        if FIRMWARE.match(line.partition(" : ")[2]):
            kept += [each for each in around if each not in kept]
    return "".join(f"{line}\n" for line in kept)


def _keyboards(text: str) -> str:
    """Without where each device hangs and its serial number or Bluetooth address (P: and U:)."""
    return "".join(line for line in text.splitlines(keepends=True) if line[:2] not in ("P:", "U:"))


def _file_system(text: str) -> str:
    """What udev has found on a disk; its label where it is a ZFS pool's name."""
    wanted = (*_UDEV, *(("ID_FS_LABEL",) if "E:ID_FS_TYPE=zfs_member" in text.split("\n") else ()))
    lines = [line for line in text.split("\n") if line[2:].partition("=")[0] in wanted]
    return "".join(f"{line}\n" for line in lines)


def _sources(text: str) -> str:
    """A document with the addresses of the host's devices that a libvirt domain has."""
    elements = [
        '<source><address domain="0x{}" bus="0x{}" slot="0x{}" function="0x{}"/></source>'.format(
            *re.split("[:.]", address)
        )
        for address in source_addresses(text)
    ]
    return f"<domstatus>{''.join(elements)}</domstatus>\n"


def _aliases(text: str) -> str:
    prefixes = tuple(f"alias {prefix}" for prefix in _ALIASES)
    return "".join(f"{line}\n" for line in text.split("\n") if line.startswith(prefixes))


def _built_in_aliases(text: str) -> str:
    keys = tuple(f".alias={prefix}" for prefix in _ALIASES)
    return "".join(f"{record}\0" for record in text.split("\0") if any(key in record for key in keys))


def _of_vfio(text: str) -> str:
    """The lines of a list of modules, or of the kernel's configuration, that are about VFIO and iommufd. The first one
    stays, too: a list without any of them is not an empty one."""
    first, *rest = text.splitlines(keepends=True) or [""]
    return first + "".join(line for line in rest if re.search("vfio|iommufd", line, re.IGNORECASE))


EXCERPTS: Mapping[str, Callable[[str], str]] = {
    "proc/interrupts": _without_counts,
    "proc/iomem": _frame_buffers,
    "proc/bus/input/devices": _keyboards,
    "run/udev/data/*": _file_system,
    "run/libvirt/*": _sources,
    "lib/modules/*/modules.alias": _aliases,
    "lib/modules/*/modules.dep": _of_vfio,
    "lib/modules/*/modules.builtin": _of_vfio,
    "boot/config-*": _of_vfio,
    "lib/modules/*/modules.builtin.modinfo": _built_in_aliases,
}
