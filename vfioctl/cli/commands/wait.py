"""vfioctl wait"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import PATIENCE, SUBJECT, driver_name, names_of
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.model import Snapshot
from vfioctl.policy.subjects import Name

COLUMNS: Columns = {
    "subject": lambda r: r["subject"],
    "group": lambda r: r["group"],
    "drivers": lambda r: r["drivers"],
    "viable": lambda r: r["viable"],
    "usable": lambda r: r["usable"],
    "node": lambda r: r["node"] and r["node"]["path"],
    "owner": lambda r: r["node"] and f"{r['node']['uid']}:{r['node']['gid']}",
    "mode": lambda r: r["node"] and r["node"]["mode"],
    "cdev": lambda r: r["cdev"] and r["cdev"]["path"],
}
DEFAULT = ("subject", "group", "drivers", "viable", "node")
CONDITIONS = {
    "viable": "The group is viable.",
    "usable": "The group is usable.",
    "node": "There is a node to open, and udev has done with it.",
    "released": "No process has it open through VFIO.",
    "bound": "It has a driver; of a group, each member that could be assigned.",
    "present": "It is there.",
    "gone": "It is not there.",
}


def condition_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each condition."""
    for name, help_text in reversed(CONDITIONS.items()):
        function = click.option(f"--{name}", is_flag=True, help=help_text)(function)
    return function


@click.command(
    "wait",
    epilog="""\b
Examples:
  vfioctl wait 26 --node --timeout 10 && qemu-system-x86_64 -device vfio-pci,host=01:00.0
  vfioctl wait 0000:01:00.0 --released --timeout 60 && vfioctl unbind 0000:01:00.0
  vfioctl wait 01:00.0 01:00.1 --driver vfio-pci -q
  vfioctl wait 0000:01:00.0 --node -n -o node

\b
Exit status:
  0 it holds of all, 124 it did not come true within --timeout: what is missing is said; with --released also
  3 it is not there, 4 this user cannot see whether somebody has it open.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@condition_options
@click.option(
    "--driver", metavar="NAME", callback=driver_name, help="With --bound, or alone: it has this driver."
)
@click.option(
    "--timeout",
    "patience",
    type=PATIENCE,
    metavar="SECONDS",
    help="How long to wait; 0 looks only.  [default: vfioctl's own --timeout]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing: the exit status is the answer.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    /,
    subjects: tuple[str, ...],
    driver: str | None,
    patience: float | None,
    quiet: bool,
    output: Output,
    **conditions: bool,
) -> None:
    """Wait until something holds of groups or devices, of all of them at a time, and show what they are then.

    One condition is asked for. It may hold already. What is not there is waited for, but for --released. A DEVICE
    stands for its group with --viable and --usable; a GROUP stands for its members with --bound and --released.

    Who holds a device is looked for every second, among the processes that can be seen: root sees all of them. Where
    some cannot be seen, the node of the group is opened for an instant once it seems free, which tells.
    """
    from vfioctl.ops.waiting import Wish, wait

    asked = [name for name, on in conditions.items() if on] or (["bound"] if driver is not None else [])
    if len(asked) != 1 or (driver is not None and asked != ["bound"]):
        raise UsageError(
            "wait waits for one condition: " + ", ".join(f"--{name}" for name in CONDITIONS),
            hint="--driver NAME goes with --bound",
        )
    machine = session.machine
    names = names_of(session, subjects)
    machine.named = [name.key for name in names if name.key is not None]
    wish = Wish(asked[0], driver)
    snapshot = wait(machine, names, wish, session.timeout if patience is None else patience, session.tell)
    if not quiet:
        rows = [_record(snapshot, name) for name in names]
        document = {**records.document("condition", wish.condition), "results": rows}
        emit(session, output, document, rows, COLUMNS)


def _record(snapshot: Snapshot, name: Name) -> dict[str, Any]:
    from vfioctl.policy.conditions import find, group_of
    from vfioctl.policy.viability import judge

    found = find(snapshot, name)
    group = group_of(snapshot, found)
    return records.state(name.text, found, None if group is None else judge(group, snapshot.kernel))
