"""vfioctl container remove"""

from __future__ import annotations

from collections.abc import Sequence

import click

from vfioctl.cli import messages
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve_all
from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import NotFound

COLUMNS: Columns = {
    "name": lambda r: r["name"],
    "groups": lambda r: r["groups"],
    "changed": lambda r: r["changed"],
}


@click.command(
    "remove",
    epilog="""\b
Examples:
  vfioctl container remove work 27
  vfioctl container remove work 0000:02:00.0""",
)
@click.argument("name", metavar="NAME", type=CONTAINER)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@output_options(COLUMNS, tuple(COLUMNS))
@click.pass_obj
def command(session: Session, name: str, subjects: tuple[str, ...], output: Output) -> None:
    """Take groups out of an open container: their devices are closed, and reset by that.

    With the last group the kernel drops all mappings; the container stays open, without an address space.
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, name) as client:
        numbers = _numbers(session, subjects)
        _check(name, numbers, client.show()["groups"])
        for number in sorted(numbers):
            client.call("remove", {"group": number})
        left = client.show()
    record = {"name": name, "groups": left["groups"], "changed": True}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
    if not left["groups"]:
        messages.note(f"{name} has no groups any more, and nothing is mapped: vfioctl container close {name}")


def _check(name: str, numbers: set[int], groups: Sequence[int]) -> None:
    """Raises NotFound before anything is done."""
    for number in sorted(numbers.difference(groups)):
        raise NotFound(
            f"group {number} is not in the container {name!r}",
            hint=f"it has {', '.join(map(str, groups))}" if groups else "it has none",
            subject=str(number),
            code="not-in-container",
        )


def _numbers(session: Session, subjects: tuple[str, ...]) -> set[int]:
    """A group that is gone from the host can be named by its number still."""
    plain = {int(subject) for subject in subjects if subject.isdecimal()}
    others = [subject for subject in subjects if not subject.isdecimal()]
    if not others:
        return plain
    snapshot = session.snapshot(others)
    return plain | group_numbers(snapshot, resolve_all(session, snapshot, others))
