"""vfioctl watch"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import PATIENCE, SUBJECT, Seconds, names_of
from vfioctl.cli.output import Columns, Output, Stream, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import DeadlinePassed, UsageError
from vfioctl.model import shown
from vfioctl.policy.events import KINDS

COLUMNS: Columns = {
    "time": lambda r: f"{r['time']:.3f}",
    "clock": lambda r: time.strftime("%H:%M:%S", time.localtime(r["time"])),
    "event": lambda r: r["event"],
    "initial": lambda r: r["initial"],
    "group": lambda r: r["group"],
    "device": lambda r: r["address"] and shown(f"{r['bus']}/{r['address']}"),
    "before": lambda r: _words(r["before"]),
    "after": lambda r: _words(r["after"]),
}
DEFAULT = ("time", "event", "group", "device", "before", "after")
DEFAULT_TABLE = ("clock", *DEFAULT[1:])
WIDTHS = {"time": 14, "clock": 8, "event": 16, "group": 5, "device": 12, "before": 10}


def _kinds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return KINDS
    chosen = tuple(name.strip().lower() for name in value.split(","))
    for name in chosen:
        if name not in KINDS:
            raise UsageError(f"--events: there is no event {name!r}", hint=f"events: {', '.join(KINDS)}")
    return chosen


@click.command(
    "watch",
    epilog="""\b
Examples:
  vfioctl watch
  vfioctl watch 26 0000:01:00.0 --events bound,node-added,node-access
  vfioctl watch -J --initial | jq -r 'select(.event == "not-viable") | .group'
  vfioctl watch 0000:01:00.0 --events device-removed --count 1 --timeout 60 || echo "still there"

\b
Exit status:
  0 --count events have come, or --timeout is over without --count; 124 fewer than --count came within --timeout;
  130 or 143 ended by SIGINT or SIGTERM.""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option(
    "--events",
    "kinds",
    metavar="A,B",
    callback=_kinds,
    help=f"Only these: {', '.join(KINDS)}.",
)
@click.option("--initial", is_flag=True, help="First tell what is there now, as if it had just come.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option(
    "--timeout",
    "patience",
    type=PATIENCE,
    metavar="SECONDS",
    help="End after this time.  [default: never]",
)
@click.option(
    "--interval",
    type=Seconds(min=0.05, max=86400),
    metavar="SECONDS",
    help="How often to look for what the kernel does not announce.  [default: 5]",
)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    kinds: tuple[str, ...],
    initial: bool,
    count: int | None,
    patience: float | None,
    interval: float | None,
    output: Output,
) -> None:
    """Follow what happens: devices, drivers, groups, nodes and their owners, viability; a line each, with what was
    before and what is after.

    A GROUP stands for itself and its members, a DEVICE for itself and its group as a whole; either may not be there
    yet. Without arguments all. Events are the differences of two looks at the host. The kernel's own events (no udev
    daemon is needed) only say when to look, so that none that is lost matters, and a flood of them becomes a few looks.
    What comes and goes between two looks is not seen; what the kernel does not announce, such as a change of a node's
    owner or of driver_override, is seen within --interval.
    """
    from vfioctl.ops.watching import follow

    machine = session.machine
    names = names_of(session, subjects)
    machine.named = [name.key for name in names if name.key is not None]
    if output.format == "table" and not output.chosen:
        output = output._replace(columns=DEFAULT_TABLE)
    stream = Stream(output, COLUMNS, WIDTHS)
    limit = math.inf if patience is None else patience
    came = 0
    for happened in follow(
        machine,
        names,
        kinds,
        patience=limit,
        interval=interval,
        initial=initial,
        reader=_stdout(),
        tell=session.tell,
    ):
        stream.write(records.event(happened))
        came += not happened.initial
        if came == count:
            return
    if count is not None:
        raise DeadlinePassed(f"{came} of {count} events came within {limit:g} s", code="too-few-events")


def _stdout() -> int | None:
    try:
        return sys.stdout.fileno()
    except OSError:  # no file: a test's, or a caller's in this process
        return None


def _words(value: Any) -> object:
    """What a value is, in a column."""
    if not isinstance(value, dict):
        return value
    if "path" in value:
        return [value["path"], f"{value['uid']}:{value['gid']}", value["mode"]]
    if "devices" in value:
        return value["devices"]
    return value["vendor"] and f"{value['vendor']}:{value['device']}"
