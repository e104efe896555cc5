"""What an open device can do beyond regions and interrupts: it is asked, and nothing is done to it (floor 4)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple

from vfioctl.host import vfio_features as calls
from vfioctl.host import vfio_words as words
from vfioctl.host.ioctl import CallError
from vfioctl.ops.explained import explained
from vfioctl.policy.refusals import State


class Migration(NamedTuple):
    """How a device can be migrated, where it stands in that (a name), and the bytes that are to be copied while it
    stands still (None: not told)."""

    flags: int
    state: str | None
    stop_copy_length: int | None


class Features(NamedTuple):
    """Every feature that vfioctl knows, by name. ``migration`` is None for a device that cannot be migrated."""

    supported: Mapping[str, bool]
    migration: Migration | None


def features(name: str, fd: int) -> Features:
    """The features of an open device; all are missing before Linux 5.7. Raises VfioctlError."""
    with explained(State(device=name)):
        found = {
            feature: calls.device_feature_probe(fd, number, operation)
            for feature, (number, operation) in words.FEATURES.items()
        }
        return Features(found, _migration(fd, found) if found["migration"] else None)


def _migration(fd: int, found: Mapping[str, bool]) -> Migration:
    flags = calls.device_migration(fd)
    state = size = None
    if found["mig_device_state"]:
        state = words.MIGRATION_STATES.get(calls.device_migration_state(fd))
    if found["mig_data_size"]:
        try:
            size = calls.device_migration_size(fd)
        except CallError as error:
            if error.errno not in (
                errno.EINVAL,
                errno.ENODEV,
                errno.EIO,
            ):  # not in the state that it stands in
                raise
    return Migration(flags, state, size)
