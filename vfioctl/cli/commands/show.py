"""vfioctl show"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, group_of, resolve
from vfioctl.cli.commands.list_devices import add_names
from vfioctl.cli.output import Output, emit, output_options, text
from vfioctl.cli.session import Session
from vfioctl.errors import NotFound, UsageError, VfioctlError, visible
from vfioctl.model import Device, IommuGroup, Kernel
from vfioctl.policy.viability import Viability, judge


@click.command(
    "show",
    epilog="""\b
Examples:
  vfioctl show 0000:01:00.0
  vfioctl show 26 -J
  vfioctl show eth0 -P group --value
  vfioctl show 01:00.0 -P driver -P node.mode
  vfioctl show 01:00.0 --live -J | jq '.device.live.migration'""",
)
@click.argument("subject", metavar="GROUP|DEVICE", type=SUBJECT)
@click.option(
    "-P", "--property", "keys", multiple=True, metavar="KEY", help="Only this key (node.path); repeatable."
)
@click.option("--value", is_flag=True, help="With -P: the bare value, without the key.")
@click.option("--names", is_flag=True, help="Add names from the udev hardware database.")
@click.option(
    "--live",
    is_flag=True,
    help="Open the device, and show what only that tells: regions, interrupts, features. Opening resets it.",
)
@output_options()
@click.pass_obj
def command(
    session: Session,
    subject: str,
    keys: tuple[str, ...],
    value: bool,
    names: bool,
    live: bool,
    output: Output,
) -> None:
    """Show everything known of one group or device, one KEY=VALUE a line.

    Names are those of sysfs where it has one. An absent value is "-". A device that an open container of the caller's
    has open is asked, too: live.regions, live.irqs, live.features, live.migration.
    """
    if value and not keys:
        raise UsageError("--value goes with -P KEY")
    snapshot = session.snapshot((subject,))
    found = resolve(session, snapshot, subject)
    group = group_of(snapshot, found)
    verdict = None if group is None else judge(group, snapshot.kernel)
    if isinstance(found, IommuGroup):
        assert verdict is not None
        kind, record = "group", records.group(found, verdict)
        record["problems"] = [records.problem(problem) for problem in verdict.problems]
        record["type_changes"] = _type_changes(verdict, snapshot.kernel)
    else:
        kind, record = "device", _device(session, found, records.device(found, verdict), keys)
        if names:
            add_names(session, [found], [record])
        record["live"] = _live(session, found, live)
    if live and isinstance(found, IommuGroup):
        raise UsageError("--live is for a device, and this is a group", subject=subject)
    if keys:
        chosen = _chosen(record, keys)
        if output.format in ("json", "yaml"):
            emit(session, output, {"schema_version": records.SCHEMA_VERSION, **chosen})
            return
        for key, item in chosen.items():
            sys.stdout.write(("" if value else f"{key}=") + f"{visible(text(item))}\n")
    elif output.format in ("json", "yaml"):
        emit(session, output, records.document(kind, record))
    else:
        for key, item in _flat(record):
            sys.stdout.write(f"{key}={visible(text(item))}\n")


def _device(
    session: Session, device: Device, record: dict[str, Any], keys: tuple[str, ...]
) -> dict[str, Any]:
    from vfioctl.cli.device_states import KEYS, device_states
    from vfioctl.host.attributes import read_attributes

    states, sentences = device_states(session.root, device)
    if not keys or any(key.partition(".")[0] in KEYS for key in keys):
        for sentence in sentences:
            messages.note(sentence)
    attributes = read_attributes(session.root, device.key)
    return {**record, "modalias": device.modalias, **attributes, **states}


def _type_changes(verdict: Viability, kernel: Kernel) -> list[dict[str, Any]]:
    from vfioctl.policy.domain_type import changes

    return [change._asdict() for change in changes(verdict, kernel)]


def _live(session: Session, device: Device, wanted: bool) -> dict[str, Any] | None:
    """What the device itself tells, when it is open in a container, or to be opened."""
    if session.replay or (not wanted and not _is_open(session, device)):
        return None
    from vfioctl.cli import live
    from vfioctl.ops.device import opened

    with opened(session.machine, device, tell=session.tell) as kept:
        return live.record(kept, session.timeout)


def _is_open(session: Session, device: Device) -> bool:
    from vfioctl.ops.keeper import named

    for name in named.names(session.machine):
        with suppress(VfioctlError), named.connected(session.machine, name) as client:
            if any(each["address"] == device.address and each["open"] for each in client.show()["devices"]):
                return True
    return False


def _chosen(record: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of some keys. Raises NotFound for a key that there is not, UsageError for one with parts."""
    flat = dict(_flat(record))
    found = {}
    for key in keys:
        parts = [name for name in flat if name.startswith(f"{key}.")]
        if parts:
            raise UsageError(f"{key!r} has parts", hint=", ".join(parts), subject=key)
        # A part of something that is not there is not there either: without a node there is no node.mode.
        if key not in flat and flat.get(key.partition(".")[0], "") is not None:
            hint = f"keys: {', '.join(flat)}"
            raise NotFound(f"there is no key {key!r}", hint=hint, subject=key, code="no-such-key")
        found[key] = flat.get(key)
    return found


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in record.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            for index, part in enumerate(item):
                yield from _flat(part, f"{prefix}{key}.{index}.")
        else:
            yield f"{prefix}{key}", item
