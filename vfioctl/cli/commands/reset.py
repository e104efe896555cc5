"""vfioctl reset"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vfioctl.cli import devices, messages
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vfioctl.ops.reset import Resets
    from vfioctl.policy.resets import Reached

COLUMNS: Columns = {
    "address": lambda r: r["address"],
    "group": lambda r: r["group"],
    "driver": lambda r: r["driver"],
    "held": lambda r: r["held"],
    "problem": lambda r: r["problem"],
}
DEFAULT = ("address", "group", "driver", "held", "problem")


@click.command(
    "reset",
    epilog="""\b
Examples:
  vfioctl reset 0000:01:00.0
  vfioctl reset 01:00.0 --show-scope -c work
  vfioctl reset 01:00.0 --hot -c work

\b
Exit status:
  0 reset; with --show-scope: a hot reset would reach what is held only. 1 with --show-scope: it would be refused, or
  there is none. 5 refused: it would reach what is not held.""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.option(
    "--show-scope", is_flag=True, help="Reset nothing: show what a reset of the slot or bus would reach."
)
@click.option("--hot", is_flag=True, help="Reset the slot or bus with every device in it.")
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session, device: str, show_scope: bool, hot: bool, container: str | None, output: Output
) -> int:
    """Reset a device: its function alone, or with --hot the whole slot or bus.

    A hot reset takes every device that shares the slot or bus: it is refused unless an open container holds them all,
    each on a VFIO driver. Opening a device resets its function too, and so does closing it.
    """
    from vfioctl.ops import reset

    if show_scope and hot:
        raise UsageError("--show-scope resets nothing, and --hot resets")
    snapshot = session.snapshot((device,))
    with devices.opened(session, device, container) as kept:
        if show_scope:
            found = reset.possible(kept, snapshot, session.timeout)
            _emit(session, output, kept.name, None, found.hot or (), found)
            if not found.function:
                messages.note(f"{kept.name} has no reset of its own")
            if found.why_not is not None:
                messages.note(found.why_not)
            return int(ExitStatus.OK if found.within else ExitStatus.NO)
        if hot:
            scope = reset.reset_hot(kept, snapshot, session.timeout)
        else:
            scope = (reset.reset_function(kept, snapshot, session.timeout),)
        _check_alive(session, kept.name, kept.fd)
    _emit(session, output, kept.name, "hot" if hot else "function", scope, None)
    return int(ExitStatus.OK)


def _check_alive(session: Session, name: str, fd: int) -> None:
    """That a PCI device answers after its reset. Raises KernelRefusal (``device-gone``)."""
    from vfioctl.ops.regions import Regions

    regions = Regions(name, fd, session.timeout)
    if any(region.name == "config" for region in regions.all):
        regions.read(regions.find("config"), 0, 4)


def _emit(
    session: Session,
    output: Output,
    name: str,
    method: str | None,
    scope: Iterable[Reached],
    found: Resets | None,
) -> None:
    """What was reset by which ``method``, or (None) what would be."""
    records: list[dict[str, Any]] = [
        {
            "address": each.address,
            "group": each.group,
            "driver": each.driver,
            "held": each.held,
            "problem": each.why_not,
        }
        for each in scope
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "device": name,
        "method": method,
        "function_reset": found and found.function,
        "hot_reset": found and found.hot is not None,
        "within": found and found.within,
        "scope": records,
        "changed": method is not None,
    }
    emit(session, output, document, records, COLUMNS)
