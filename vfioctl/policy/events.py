"""What has happened on a host, as the differences of two looks at it. Pure.

The kernel announces devices and drivers only: not groups, nor the owner of a node, nor an override; and in a flood its
announcements are lost. Whatever lasts until the next look is seen, and what came and went before it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from vfioctl.model import Device, IommuGroup, Node, Snapshot
from vfioctl.policy.subjects import Name
from vfioctl.policy.viability import judge

#: In the order in which those of one look are told.
KINDS = (
    "unbound", "node-removed", "device-removed", "group-removed", "group-added", "device-added", "group-changed",
    "override-changed", "bound", "node-added", "node-access", "not-viable", "viable",
)  # fmt: skip

Value = Device | IommuGroup | Node | str | bool | None


class Event(NamedTuple):
    """Something that has become different. Of a group as a whole: without ``address`` and ``bus``.

    ``before`` and ``after`` are the device, the group, the node, the driver, the override, or whether the group is
    viable; None for what there is not.
    """

    kind: str
    group: int | None
    address: str | None = None
    bus: str | None = None
    before: Value = None
    after: Value = None

    @property
    def key(self) -> str | None:
        """The device, as ``bus/address``."""
        return None if self.address is None else f"{self.bus}/{self.address}"


def differences(before: Snapshot, after: Snapshot) -> list[Event]:
    """What has happened between two looks. A device that comes has no driver at first, and one that goes loses its
    driver first, as one loses it that gets another."""
    events = [*_of_devices(before, after), *_of_groups(before, after)]
    return sorted(
        events, key=lambda e: (KINDS.index(e.kind), -1 if e.group is None else e.group, e.key or "")
    )


def known(before: Snapshot, after: Snapshot) -> Snapshot:
    """``after`` with the overrides of ``before`` for devices whose lock keeps theirs from being read; those that are
    ``locked`` yet have none that is known."""
    if not any(device.locked for device in after.devices):
        return after
    overrides = {device.key: device.driver_override for device in before.devices if not device.locked}

    def filled(devices: Iterable[Device]) -> tuple[Device, ...]:
        return tuple(
            device._replace(driver_override=overrides[device.key], locked=False)
            if device.locked and device.key in overrides
            else device
            for device in devices
        )

    groups = tuple(group._replace(devices=filled(group.devices)) for group in after.groups)
    return after._replace(groups=groups, devices=filled(after.devices))


def concerning(
    events: Iterable[Event], names: Collection[Name], before: Snapshot, after: Snapshot
) -> Iterator[Event]:
    """The events of what is named: of a group and all its members; of a device, and of its group as a whole. Nothing
    named: all."""
    numbers = {name.number for name in names if name.number is not None}
    keys = {name.key for name in names}
    theirs = {device.group for found in (before, after) for device in found.devices if device.key in keys}
    for event in events:
        whole = event.key is None and event.group in theirs
        if not names or event.group in numbers or (event.key is not None and event.key in keys) or whole:
            yield event


def _of_devices(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    old = {device.key: device for device in before.devices}
    new = {device.key: device for device in after.devices}
    for key in old.keys() | new.keys():
        then, now = old.get(key), new.get(key)
        if then is None or now is None or then.modalias == now.modalias:
            yield from _of_device(then, now)
        else:  # another one at the same address
            yield from _of_device(then, None)
            yield from _of_device(None, now)


def _of_device(then: Device | None, now: Device | None) -> Iterator[Event]:
    if then == now:
        return
    device = now or then
    assert device is not None

    def event(kind: str, old: Value = None, new: Value = None) -> Event:
        return Event(kind, device.group, device.address, device.bus, old, new)

    had, has = then and then.driver, now and now.driver
    if then is None:
        yield event("device-added", None, now)
    if had != has:
        if had:
            yield event("unbound", had)
        if has:
            yield event("bound", None, has)
    override = then and then.driver_override
    unknown = now is None or now.locked or (then is not None and then.locked)
    if now is not None and not unknown and now.driver_override != override:
        yield event("override-changed", override, now.driver_override)
    for kind, old, new in _of_node(then and then.cdev, now and now.cdev):
        yield event(kind, old, new)
    if now is None:
        yield event("device-removed", then)


def _of_groups(before: Snapshot, after: Snapshot) -> Iterator[Event]:
    old = {group.id: group for group in before.groups}
    new = {group.id: group for group in after.groups}
    same_rules = before.kernel == after.kernel
    for number in old.keys() | new.keys():
        then, now = old.get(number), new.get(number)
        if then == now and same_rules:
            continue
        if then is None or now is None:
            yield Event("group-added" if then is None else "group-removed", number, before=then, after=now)
        elif _shape(then) != _shape(now):
            yield Event("group-changed", number, before=then, after=now)
        for kind, gone, come in _of_node(then and then.node, now and now.node):
            yield Event(kind, number, before=gone, after=come)
        was = None if then is None else judge(then, before.kernel).viable
        if now is not None and (viable := judge(now, after.kernel).viable) != was:
            yield Event("viable" if viable else "not-viable", number, before=was, after=viable)


def _shape(group: IommuGroup) -> tuple[str | None, tuple[str, ...]]:
    return group.type, tuple(device.key for device in group.devices)


def _of_node(then: Node | None, now: Node | None) -> Iterator[tuple[str, Node | None, Node | None]]:
    if then == now:
        return
    if then is not None and now is not None and then.path == now.path:
        yield "node-access", then, now
        return
    if then is not None:
        yield "node-removed", then, None
    if now is not None:
        yield "node-added", None, now
