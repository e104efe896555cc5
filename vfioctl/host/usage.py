"""What the host itself uses a device for: mounted file systems, swap, the default route; from sysfs and procfs.

procfs escapes blanks and line feeds in names and nothing else, so that lines end at a line feed only: str.splitlines
would end them at a carriage return or U+2028 in a mount point too, and miss the mount.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from vfioctl.errors import visible
from vfioctl.host.files import names, read
from vfioctl.host.names import carried_by
from vfioctl.model import Use


def uses_of(root: str, key: str) -> tuple[Use, ...]:
    """The uses of the device ``bus/address`` and of what is built on its disks (partitions, dm-crypt, LVM, md) and
    interfaces (bonds, bridges). Device-mapper and md layers are followed through ``holders``."""
    bus, _, address = key.partition("/")
    top = os.path.join(root, "sys/bus", bus, "devices", address)
    return (*_disk_uses(root, top), *_route_uses(root, top))


def _disk_uses(root: str, top: str) -> Iterator[Use]:
    carried = list(dict.fromkeys(_with_holders(root, carried_by(root, top, "block"))))
    numbers = {read(os.path.join(root, "sys/class/block", name, "dev")): name for name in carried}
    for line in (read(os.path.join(root, "proc/self/mountinfo")) or "").split("\n"):
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields:
            continue
        source = fields[fields.index("-") + 2]
        # btrfs and others mount under a device number of their own, but name a real device as the source.
        name = numbers.get(fields[2]) or _base_name(root, source)
        if name in carried:
            where = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            yield Use(
                "root-disk" if where == "/" else "mounted-disk", f"{name} is mounted on {visible(where)}"
            )
    for line in (read(os.path.join(root, "proc/swaps")) or "").split("\n")[1:]:
        name = _base_name(root, line.split(" ")[0])
        if name in carried:
            yield Use("swap", f"{name} is swap space")


def _route_uses(root: str, top: str) -> Iterator[Use]:
    interfaces = set(_with_uppers(root, carried_by(root, top, "net")))
    for line in (read(os.path.join(root, "proc/net/route")) or "").split("\n")[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000" and fields[0] in interfaces:
            yield Use("default-route", f"the IPv4 default route leaves through {fields[0]}")
    for line in (read(os.path.join(root, "proc/net/ipv6_route")) or "").split("\n"):
        fields = line.split()
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] in interfaces:
            yield Use("default-route", f"the IPv6 default route leaves through {fields[9]}")


def _with_holders(root: str, found: list[str]) -> Iterator[str]:
    for name in found:
        yield name
        yield from _with_holders(root, names(os.path.join(root, "sys/class/block", name, "holders")))


def _with_uppers(root: str, found: list[str]) -> Iterator[str]:
    """Interfaces, and what is stacked on them: bonds, bridges, VLANs, each on the other."""
    for name in found:
        yield name
        entries = names(os.path.join(root, "sys/class/net", name))
        yield from _with_uppers(root, [entry[6:] for entry in entries if entry.startswith("upper_")])


def _base_name(root: str, path: str) -> str:
    """``/dev/mapper/vg-root`` is a link to ``../dm-0``."""
    return os.path.basename(os.path.realpath(os.path.join(root, path.lstrip("/")))) if path[:1] == "/" else ""
