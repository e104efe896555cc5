"""What only an open device tells, as a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vfioctl.ops.device import OpenDevice


def record(device: OpenDevice, timeout: float) -> dict[str, Any]:
    """Flags, regions, interrupts, features and migration of an open device. Raises VfioctlError."""
    from vfioctl.cli import records
    from vfioctl.host import vfio_words as words
    from vfioctl.host.vfio_device import device_get_info
    from vfioctl.ops.explained import explained
    from vfioctl.ops.features import features
    from vfioctl.ops.irqs import Irqs
    from vfioctl.ops.regions import Regions
    from vfioctl.policy.refusals import State

    with explained(State(device=device.name)):
        info = device_get_info(device.fd)
    found = features(device.name, device.fd)
    atomic, migration = info.atomic_completion, found.migration
    return {
        "flags": words.flags(info.flags, words.DEVICE_FLAGS),
        "atomic_completion": None if atomic is None else words.flags(atomic, words.ATOMIC_COMPLETIONS),
        "zpci": info.zpci and _plain(info.zpci._asdict()),
        "regions": [
            records.device_region(region)
            for region in Regions(device.name, device.fd, timeout).all
            if region.info.size
        ],
        "irqs": [records.irq(irq) for irq in Irqs(device, timeout).all if irq.vectors],
        "features": dict(found.supported),
        "migration": migration
        and {
            "flags": words.flags(migration.flags, words.MIGRATION_FLAGS),
            "state": migration.state,
            "stop_copy_length": migration.stop_copy_length,
        },
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Bytes as hexadecimal digits."""
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()}
