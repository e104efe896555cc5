"""VFIO_DEVICE_FEATURE: what a device can do beyond the basics; a function per feature (floor 2).

Every function raises :class:`~vfioctl.host.ioctl.CallError`; ENOTTY where the kernel or the device's driver does not
have the feature, which :func:`device_feature_probe` asks without doing anything. Linux 5.7 and later.
"""

from __future__ import annotations

import errno
from typing import TypeVar
from uuid import UUID

from vfioctl.host.ioctl import CallError, ioctl
from vfioctl.uapi import feature, vfio
from vfioctl.uapi.cstruct import CStruct
from vfioctl.uapi.feature import VFIO_DEVICE_FEATURE_GET as GET
from vfioctl.uapi.feature import VFIO_DEVICE_FEATURE_PROBE as PROBE
from vfioctl.uapi.feature import VFIO_DEVICE_FEATURE_SET as SET

Payload = TypeVar("Payload", bound=CStruct)


def device_feature_probe(device: int, number: int, operation: int) -> bool:
    """Whether the device has a feature and an ``operation`` (VFIO_DEVICE_FEATURE_GET, _SET or both) of it."""
    try:
        _feature(device, number, PROBE | operation)
    except CallError as error:
        # EINVAL: the feature has no such operation. The kernel knew the ioctl, so it is not the struct.
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return False
        raise
    return True


def device_feature_get(device: int, number: int, payload: type[Payload]) -> Payload:
    """What a feature answers."""
    buffer = _feature(device, number, GET, payload().pack())
    return payload.unpack(buffer, feature.vfio_device_feature.size_of)


def device_migration(device: int) -> int:
    """VFIO_MIGRATION_*: how the device can be migrated (5.18)."""
    number = feature.VFIO_DEVICE_FEATURE_MIGRATION
    return device_feature_get(device, number, feature.vfio_device_feature_migration).flags


def device_migration_state(device: int) -> int:
    """VFIO_DEVICE_STATE_*: where the device is in its migration (5.18)."""
    number = feature.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    return device_feature_get(device, number, feature.vfio_device_feature_mig_state).device_state


def device_migration_size(device: int) -> int:
    """An estimate of the bytes that have to be copied while the device stands still (6.2)."""
    number = feature.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
    return device_feature_get(device, number, feature.vfio_device_feature_mig_data_size).stop_copy_length


def device_low_power_entry(device: int, wakeup_eventfd: int | None = None) -> None:
    """Let the device sleep until somebody uses it; ``wakeup_eventfd`` is signalled when it wakes (6.1)."""
    if wakeup_eventfd is None:
        _feature(device, feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, SET)
        return
    payload = feature.vfio_device_low_power_entry_with_wakeup(wakeup_eventfd=wakeup_eventfd)
    _feature(device, feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, SET, payload.pack())


def device_low_power_exit(device: int) -> None:
    """Keep the device awake (6.1)."""
    _feature(device, feature.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, SET)


def device_bus_master(device: int, on: bool) -> None:
    """Allow or forbid the device to start transfers, on buses without a register for that: fsl-mc, CDX (6.7)."""
    op = feature.VFIO_DEVICE_FEATURE_SET_MASTER if on else feature.VFIO_DEVICE_FEATURE_CLEAR_MASTER
    payload = feature.vfio_device_feature_bus_master(op=op)
    _feature(device, feature.VFIO_DEVICE_FEATURE_BUS_MASTER, SET, payload.pack())


def device_vf_token(device: int, token: UUID) -> None:
    """Set the token that users of this physical function's virtual functions have to know (5.7)."""
    _feature(device, feature.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, SET, token.bytes)


def _feature(device: int, number: int, operation: int, payload: bytes | bytearray = b"") -> bytearray:
    argsz = feature.vfio_device_feature.size_of + len(payload)
    buffer = feature.vfio_device_feature(argsz=argsz, flags=number | operation).pack(payload)
    ioctl(device, vfio.VFIO_DEVICE_FEATURE, buffer)
    return buffer
