"""Disks in use (refuse) and disks with data (warn): two different things, which others have confused at a cost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from vfioctl.errors import visible
from vfioctl.host import bounded
from vfioctl.host.files import read
from vfioctl.host.recorded import recorded
from vfioctl.host.usage.stack import Stack, udev_properties
from vfioctl.model import Use

#: How long opening a disk may take, in seconds.
PATIENCE = 5.0
_SHOWN_MOUNTS = 3


def disk_uses(root: str, stack: Stack, carried: Sequence[str]) -> Iterator[Use]:
    """The uses of the block devices ``carried`` (disks and their partitions) that leave together."""
    origins: dict[str, str] = {}
    for name in carried:
        for upper in stack.reach(name):
            # The nearest one carried: the partition rather than its disk.
            if upper in carried:
                origins[upper] = upper
            elif upper not in origins or origins[upper] not in stack.partitions:
                origins[upper] = name
    for name, origin in origins.items():
        yield from _own_uses(stack, name, origin)
    for name, origin in origins.items():
        if name not in carried and _is_idle_top(stack, name):
            yield Use("disk-in-use", visible(f"{stack.label(name)} is active on {origin}"))
    for disk in carried:
        if disk not in stack.partitions:
            yield from _data_or_claim(root, stack, disk)


def _own_uses(stack: Stack, name: str, origin: str) -> Iterator[Use]:
    label = stack.label(name)
    suffix = "" if name == origin else f", built on {origin}"
    mounts = stack.mounts.get(name, [])
    if "/" in mounts:
        yield Use("root-disk", visible(f"{label} is mounted on /{suffix}"))
    others = [where for where in mounts if where != "/"]
    if others:
        more = f" and {len(others) - _SHOWN_MOUNTS} more" if len(others) > _SHOWN_MOUNTS else ""
        shown = ", ".join(others[:_SHOWN_MOUNTS]) + more
        yield Use("mounted-disk", visible(f"{label} is mounted on {shown}{suffix}"))
    if name in stack.swaps:
        yield Use("swap", visible(f"{label} is swap space{suffix}"))


def _is_idle_top(stack: Stack, name: str) -> bool:
    """Whether a device built on others is active and nothing uses it that would be named instead."""
    return name not in stack.partitions and is_idle(stack, name)


def _data_or_claim(root: str, stack: Stack, disk: str) -> Iterator[Use]:
    """What a disk that is neither mounted nor built on has: a claim that only the kernel knows of, or data."""
    rest = stack.reach(disk)
    if not is_idle(stack, disk):
        return
    record = recorded(root)
    if root == "/" or record is not None:
        if (os.geteuid() if record is None else record.euid) != 0:
            yield Use("unseen", f"only root can see whether something else has claimed {disk}", refuses=False)
        elif is_claimed(disk) if record is None else disk in record.claimed:
            yield Use(
                "disk-in-use", f"something has claimed {disk} for itself: it cannot be opened exclusively"
            )
    known = udev_properties(root, disk)
    kind = known.get("ID_FS_TYPE") or known.get("ID_PART_TABLE_TYPE")
    if len(rest) > 1:
        yield Use("has-data", f"{disk} has partitions: {', '.join(rest[1:])}", refuses=False)
    elif kind:
        yield Use("has-data", visible(f"udev has found {kind} on {disk}"), refuses=False)


def is_idle(stack: Stack, disk: str) -> bool:
    """Whether nothing is seen to use a disk: it is not mounted nor swap, and has partitions at most of which the same
    is true. Then only the kernel can tell whether something has claimed it."""
    rest = stack.reach(disk)
    return not any(map(stack.is_used, rest)) and all(upper in stack.partitions for upper in rest[1:])


def is_claimed(disk: str) -> bool:
    """Whether something has the whole disk or a part of it for itself: a file system, md, a target, a program.

    Linux, block/bdev.c, bd_may_claim: an exclusive opener is refused with EBUSY then. A disk that does not answer in
    PATIENCE seconds, or cannot be opened, is not called claimed.
    """
    path = f"/dev/{disk.replace('!', '/')}"
    number = read(f"/sys/class/block/{disk}/dev")

    def look() -> bool:
        found = os.stat(path)
        if f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" != number:
            return False
        try:
            # Not to wait for a medium, nor to draw one in.
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    try:
        return bounded.call(look, PATIENCE)
    except (OSError, bounded.Expired):
        return False
