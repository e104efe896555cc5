"""What is built on block devices: partitions, dm-crypt, LVM, multipath, md, bcache, loops, file systems of several
disks, ZFS pools; and which of it is mounted or swap.

The names are those of /sys/class/block; a volume that is none is called ``btrfs UUID``, ``bcachefs UUID`` or
``ZFS pool NAME``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.host.files import link_name, names, read

_POOLS = "proc/spl/kstat/zfs"


class Stack(NamedTuple):
    """``above``: what is built directly on a name; ``mounts``: where a name is mounted; ``partitions`` and ``swaps``:
    the names that are such; ``labels``: the device-mapper names."""

    above: dict[str, list[str]]
    mounts: dict[str, list[str]]
    partitions: frozenset[str]
    swaps: frozenset[str]
    labels: dict[str, str]

    def reach(self, name: str) -> list[str]:
        """The name and all that is built on it, each once."""
        found = [name]
        for lower in found:
            found += [upper for upper in dict.fromkeys(self.above.get(lower, ())) if upper not in found]
        return found

    def is_used(self, name: str) -> bool:
        """Whether the name itself is mounted or swap."""
        return name in self.mounts or name in self.swaps

    def label(self, name: str) -> str:
        """The name for people: ``dm-0 (vg-root)``."""
        return f"{name} ({self.labels[name]})" if name in self.labels else name


def read_stack(root: str) -> Stack:
    """All block devices of the host and what is built on them."""
    top = os.path.join(root, "sys/class/block")
    blocks = names(top)
    above: dict[str, list[str]] = {name: [] for name in blocks}
    partitions = frozenset(name for name in blocks if os.path.exists(os.path.join(top, name, "partition")))
    dm_names = {name: read(os.path.join(top, name, "dm/name")) for name in blocks if name.startswith("dm-")}
    labels = {name: label for name, label in dm_names.items() if label}
    devices = _Names(root, blocks, {label: name for name, label in labels.items()})
    for name in blocks:
        home = os.path.join(top, name)
        above[name] += names(os.path.join(home, "holders"))
        if name in partitions:
            disk = os.path.basename(os.path.dirname(os.path.realpath(home)))
            above.setdefault(disk, []).append(name)
        elif name.startswith("loop"):
            for lower in devices.of(read(os.path.join(home, "loop/backing_file")) or ""):
                above[lower].append(name)
        if not above[name] and os.path.isdir(os.path.join(home, "bcache")):
            above[name].append("a bcache set")
    for lower, volume in _volumes(root, blocks):
        above.setdefault(lower, []).append(volume)
    return Stack(above, _mounts(root, devices, above), partitions, frozenset(_swaps(root, devices)), labels)


def udev_properties(root: str, name: str) -> dict[str, str]:
    """What udev's database has of a block device (systemd, src/libsystemd/sd-device: lines ``E:KEY=VALUE``)."""
    number = read(os.path.join(root, "sys/class/block", name, "dev"))
    lines = (read(os.path.join(root, f"run/udev/data/b{number}")) or "").split("\n")
    pairs = (line[2:].partition("=") for line in lines if line.startswith("E:"))
    return {key: value for key, _, value in pairs}


class _Names:
    """Finds the block devices that paths and device numbers of procfs name."""

    def __init__(self, root: str, blocks: list[str], dm_names: dict[str, str]) -> None:
        self._root = root
        self._blocks = frozenset(blocks)
        self._dm_names = dm_names
        numbers = {read(os.path.join(root, "sys/class/block", name, "dev")): name for name in blocks}
        self.by_number = {number: name for number, name in numbers.items() if number}

    def of(self, path: str) -> list[str]:
        """The block device ``/dev/...`` as a list of one, or none. ``/dev/mapper/vg-root`` links to ``../dm-0``; in a
        copied tree without /dev the name is what tells."""
        if not path.startswith("/dev/"):
            return []
        name = os.path.basename(os.path.realpath(os.path.join(self._root, path[1:])))
        found = self._dm_names.get(os.path.basename(path)) if "/mapper/" in path else None
        return [name] if name in self._blocks else [found] if found else []


def _volumes(root: str, blocks: list[str]) -> Iterator[tuple[str, str]]:
    """(block device, volume): file systems of several disks that are mounted somewhere, and imported pools."""
    for uuid in names(os.path.join(root, "sys/fs/btrfs")):
        for name in names(os.path.join(root, "sys/fs/btrfs", uuid, "devices")):
            yield name, f"btrfs {uuid}"
    for uuid in names(os.path.join(root, "sys/fs/bcachefs")):
        home = os.path.join(root, "sys/fs/bcachefs", uuid)
        for member in names(home):
            block = link_name(os.path.join(home, member, "block")) if member.startswith("dev-") else None
            if block is not None:
                yield block, f"bcachefs {uuid}"
    imported = set(names(os.path.join(root, _POOLS)))
    for name in blocks if imported else ():
        known = udev_properties(root, name)
        if known.get("ID_FS_TYPE") == "zfs_member" and known.get("ID_FS_LABEL") in imported:
            yield name, f"ZFS pool {known['ID_FS_LABEL']}"


def _mounts(root: str, devices: _Names, above: dict[str, list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _mount_lines(root):
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields[6:]:
            continue
        where = _unescaped(fields[4])
        type_, source, *options = fields[fields.index("-", 6) + 1 :]
        for name in _mounted(devices, above, fields[2], type_, _unescaped(source), " ".join(options)):
            if where not in found.setdefault(name, []):
                found[name].append(where)
    return found


def _mount_lines(root: str) -> Iterator[str]:
    """The mounts of this process, and those of init, for vfioctl may run in a mount namespace of its own."""
    for process in ("self", "1"):
        with contextlib.suppress(PermissionError):
            yield from (read(os.path.join(root, "proc", process, "mountinfo")) or "").split("\n")


def _mounted(
    devices: _Names, above: dict[str, list[str]], number: str, type_: str, source: str, options: str
) -> Iterator[str]:
    """What a line of mountinfo uses. btrfs, bcachefs and ZFS mount under a device number of their own."""
    if type_ == "zfs":
        yield f"ZFS pool {source.partition('/')[0]}"
    elif number in devices.by_number:
        yield devices.by_number[number]
    else:
        for path in source.split(":") if type_ == "bcachefs" else [source]:
            for name in devices.of(path):
                yield next((volume for volume in above[name] if volume.startswith(f"{type_} ")), name)
    # Journals and logs on devices of their own: logdev=/dev/sdb1.
    for option in options.split(","):
        yield from devices.of(_unescaped(option.partition("=")[2]))


def _swaps(root: str, devices: _Names) -> Iterator[str]:
    for line in (read(os.path.join(root, "proc/swaps")) or "").split("\n")[1:]:
        fields = line.split()
        if len(fields) > 1 and fields[1] == "partition":
            yield from devices.of(_unescaped(fields[0]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
