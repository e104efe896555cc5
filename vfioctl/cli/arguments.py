"""Arguments that name groups and devices, resolved against a snapshot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from vfioctl.cli import messages
from vfioctl.errors import NotFound, UsageError, VfioctlError, worst
from vfioctl.model import Device, IommuGroup, Snapshot, shown

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vfioctl.cli.session import Session
    from vfioctl.policy.subjects import Name

#: Seconds that completing a word may take to unpack a snapshot.
_PATIENCE_OF_TAB = 5.0


class Subject(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A group or device argument, completed from sysfs (below --root, where that is given)."""

    name = "subject"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        root = ctx.find_root().params.get("root") or "/"
        if not os.path.isfile(root):
            return [CompletionItem(name) for name in _names_in(root, incomplete)]
        from vfioctl.cli.roots import unpacked

        with suppress(VfioctlError), unpacked(root, _PATIENCE_OF_TAB) as directory:
            return [CompletionItem(name) for name in _names_in(directory, incomplete)]
        return []


def _names_in(root: str, incomplete: str) -> list[str]:
    """The devices and groups that begin so; a device also by its address without the domain 0000 (01:00.0)."""
    from vfioctl.host.files import names

    addresses = names(os.path.join(root, "sys/bus/pci/devices"))
    found = [address for address in addresses if address.startswith(incomplete)]
    if not found:
        found = [a[5:] for a in addresses if a.startswith(f"0000:{incomplete}")]
    return found + [
        n for n in names(os.path.join(root, "sys/kernel/iommu_groups")) if n.startswith(incomplete)
    ]


SUBJECT = Subject()


class Seconds(click.FloatRange):
    """A length of time; "nan" is none, though it is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail("nan is no number of seconds", param, ctx)
        return seconds


#: Of commands that wait for something.
PATIENCE = Seconds(min=0, max=31536000)


def driver_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of options that name a driver: it becomes part of a path and is written to sysfs. Raises UsageError."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:+ -]{0,63}", value, re.ASCII):
        raise UsageError(f"{param.opts[0]}: {value!r} is no driver's name", subject=value)
    return value


def resolve(session: Session, snapshot: Snapshot, text: str) -> IommuGroup | Device:
    """The group or device that ``text`` names. Raises UsageError (malformed, ambiguous) or NotFound."""
    from vfioctl.policy import subjects

    name = subjects.parse(text)
    if name.kind == "group":
        assert name.number is not None
        return subjects.find_group(snapshot, name.number)
    if name.kind == "address":
        return subjects.find_device(snapshot, name.bus, name.text)
    return _behind_host_name(session, snapshot, text)


def resolve_device(session: Session, text: str) -> Device:
    """The device that ``text`` names, or the only one of a group that is bound to a VFIO driver. Raises UsageError,
    NotFound."""
    from vfioctl.policy.viability import is_vfio_bound

    found = resolve(session, session.snapshot((text,)), text)
    if isinstance(found, Device):
        return found
    bound = [device for device in found.devices if is_vfio_bound(device)]
    if len(bound) != 1:
        raise UsageError(
            f"group {found.id} has {len(bound)} devices that are bound to a VFIO driver",
            hint="give the address of the device: "
            + (", ".join(d.address for d in bound) or "none is bound"),
            subject=text,
            code="ambiguous",
        )
    return bound[0]


def resolve_all(session: Session, snapshot: Snapshot, texts: Iterable[str]) -> list[IommuGroup | Device]:
    """What all the arguments name. Raises the worst error among them, and says the others on stderr."""
    found: list[IommuGroup | Device] = []
    errors: list[UsageError | NotFound] = []
    for text in texts:
        try:
            found.append(resolve(session, snapshot, text))
        except (UsageError, NotFound) as error:
            errors.append(error)
    if errors:
        deciding = worst(*(error.status for error in errors))
        first = next(failure for failure in errors if failure.status == deciding)
        for failure in errors:
            if failure is not first:
                messages.note(failure.message)
        raise first
    return found


def names_of(session: Session, texts: Iterable[str]) -> list[Name]:
    """What arguments name, there or not; a network or block name only where it is. Raises UsageError, NotFound."""
    from vfioctl.policy.subjects import Name, parse

    found = [parse(text) for text in texts]
    if all(name.kind != "host" for name in found):
        return found
    snapshot = session.snapshot()
    behind = {name: resolve(session, snapshot, name.text) for name in found if name.kind == "host"}
    return [
        Name("address", device.address, device.bus)
        if isinstance(device := behind.get(name), Device)
        else name
        for name in found
    ]


def _behind_host_name(session: Session, snapshot: Snapshot, text: str) -> Device:
    from vfioctl.host.names import devices_behind

    known = {device.address: device for device in snapshot.devices}
    found: dict[str, Device] = {}
    for path in devices_behind(session.root, text):
        between: list[str] = []
        while path not in ("/", "") and path != session.root:
            path, part = os.path.split(path)
            if part in known:
                _refuse_shared(session, known[part], text, between)
                found[known[part].key] = known[part]
                break
            between.append(part)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise UsageError(
            f"{text!r} is ambiguous: {', '.join(found)}",
            hint="give the address",
            subject=text,
            code="ambiguous",
        )
    raise NotFound(
        f"there is no group, device, network interface or block device {text!r}",
        hint="vfioctl list-devices shows the devices there are",
        subject=text,
        code="no-such-device",
    )


def _refuse_shared(session: Session, device: Device, text: str, between: list[str]) -> None:
    """Raises UsageError for a name that is only one of several things behind a controller: who says a USB stick or
    one disk of many does not mean all of them."""
    from vfioctl.host.names import carried_by

    path = os.path.join(session.root, "sys/bus", device.bus, "devices", device.address)
    disks = [
        name for name in carried_by(session.root, path, "block") if not _is_partition(session.root, name)
    ]
    usb = any(part.startswith("usb") and part[3:].isdecimal() for part in between)
    if usb or (text in disks and len(disks) > 1):
        others = f" with {', '.join(name for name in disks if name != text)}" if len(disks) > 1 else ""
        raise UsageError(
            f"{text!r} is one of several things behind {shown(device.key)}{others}",
            hint=f"if the whole controller is meant, give its address: {device.address}",
            subject=text,
            code="ambiguous",
        )


def _is_partition(root: str, name: str) -> bool:
    return os.path.exists(os.path.join(root, "sys/class/block", name, "partition"))


def group_of(snapshot: Snapshot, subject: IommuGroup | Device) -> IommuGroup | None:
    """The group itself, or the group of the device; None for a device without one."""
    if isinstance(subject, IommuGroup):
        return subject
    if subject.group is None:
        return None
    from vfioctl.policy.subjects import find_group

    return find_group(snapshot, subject.group)


def group_numbers(snapshot: Snapshot, found: Iterable[IommuGroup | Device]) -> set[int]:
    """The numbers of the groups of some subjects. Raises NotFound for a device without a group."""
    numbers = set()
    for subject in found:
        group = group_of(snapshot, subject)
        if group is None:
            assert isinstance(subject, Device)
            from vfioctl.policy.diagnosis import why_no_group

            cause, cure = why_no_group(subject, snapshot.kernel)
            raise NotFound(
                f"{subject.address} is in no IOMMU group: {cause}",
                hint=cure,
                subject=subject.address,
                code="no-iommu-group",
            )
        numbers.add(group.id)
    return numbers
