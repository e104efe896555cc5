"""vfioctl tree"""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Collection, Sequence

import click

from vfioctl.cli import messages, pci_records, records
from vfioctl.cli.arguments import SUBJECT, resolve_all
from vfioctl.cli.commands.list_devices import add_names, hex_digits
from vfioctl.cli.output import Columns, Output, Record, emit, field, output_options, style_of, text
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError, visible
from vfioctl.host.topology import read_functions
from vfioctl.model import Device, IommuGroup, PciFunction, Snapshot, shown
from vfioctl.policy import pci_tree
from vfioctl.policy.subjects import find_group
from vfioctl.policy.viability import judge

COLUMNS: Columns = {
    "address": lambda r: r["address"],
    "group": lambda r: r["group"],
    "class": lambda r: r["class"],
    "ids": lambda r: f"{r['vendor']}:{r['device']}",
    "driver": lambda r: r["driver"],
    "viable": lambda r: r["viable"],
    "usable": lambda r: r["usable"],
    "acs": lambda r: pci_records.acs_words(r["acs"]),
    "link": lambda r: pci_records.link_words(r["link"]),
    "removable": lambda r: r["removable"],
    "asleep": lambda r: r["asleep"],
    "name": lambda r: r.get("name"),
}
DEFAULT = ("group", "class", "driver", "viable", "acs", "link")


@click.command(
    "tree",
    epilog="""\b
Examples:
  vfioctl tree
  vfioctl tree 0000:01:00.0 --names
  vfioctl tree --group 26 -o address,driver,acs
  vfioctl tree --format dot | dot -Tsvg > pci.svg
  vfioctl tree -J | jq -r '.. | objects | select(.acs.present == false and .bridge) | .address'""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option("--group", metavar="N", type=click.IntRange(min=0), help="Only what is in this group.")
@click.option("--driver", metavar="NAME", help='Only what has this driver; "-" for none; * and ? match.')
@click.option("--class", "class_", metavar="HEX", help="Only what has a class that begins with these digits.")
@click.option("--names", is_flag=True, help="Add names from the udev hardware database.")
@output_options(COLUMNS, DEFAULT, formats=("dot",))
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    group: int | None,
    driver: str | None,
    class_: str | None,
    names: bool,
    output: Output,
) -> None:
    """Draw the PCI topology, a function a line: bridges with the buses behind them, virtual functions (VF) below their
    physical one, and the domain of a VMD endpoint (=[10000:e0]) as a root of its own; with the IOMMU group, driver,
    viability, ACS and link of each.

    A DEVICE, or the members of a GROUP, are drawn with the way up to them and everything below; the filters narrow
    that to what matches, and the way up. On a terminal lines end at its width.

    ACS: what a port implements of what isolation needs (SV, RR, CR, UF), each on (+) or off (-), and what else is on;
    - for none, ? where it is not known: only root may read it, and what sleeps is not woken. Link: lanes and speed now,
    and what the function could do where that is more.
    """
    snapshot = session.snapshot(subjects)
    if group is not None:
        find_group(snapshot, group)
    tops = _addresses(resolve_all(session, snapshot, subjects)) if subjects else None
    digits = None if class_ is None else hex_digits(class_, "--class")

    def wanted(function: PciFunction) -> bool:
        return (
            (group is None or function.group == group)
            and (driver is None or fnmatch.fnmatchcase(function.driver or "-", driver))
            and (digits is None or function.ids.class_.startswith(digits))
        )

    chosen = pci_tree.select(read_functions(session.root), wanted, tops)
    verdicts = {each.id: judge(each, snapshot.kernel) for each in snapshot.groups}
    roots = pci_tree.grow(chosen)
    trees = [pci_records.root(root, verdicts) for root in roots]
    found = [record for tree in trees for record in pci_records.walk(tree["functions"])]
    if names:
        add_names(session, _devices(snapshot, found), found)
        if not output.chosen:
            output = output._replace(columns=(*DEFAULT, "name"))
    if output.format == "dot":
        from vfioctl.cli.dot import graph

        by_address = {record["address"]: record for record in found}
        sys.stdout.writelines(f"{line}\n" for line in graph(roots, by_address, verdicts))
    elif output.format in ("json", "yaml"):
        emit(session, output, records.document("roots", trees))
    else:
        _draw(session, output, roots, found)
    for sentence in pci_records.unread(chosen):
        messages.note(sentence)


def _addresses(found: Collection[IommuGroup | Device]) -> set[str]:
    """The PCI devices that are meant. Raises UsageError for another."""
    addresses = set()
    for subject in found:
        if isinstance(subject, IommuGroup):
            addresses |= {device.address for device in subject.devices if device.bus == "pci"}
        elif subject.bus == "pci":
            addresses.add(subject.address)
        else:
            raise UsageError(
                f"{shown(subject.key)} is not on PCI, and this is the tree of PCI",
                hint=f"vfioctl show {shown(subject.key)}",
                subject=subject.address,
            )
    return addresses


def _devices(snapshot: Snapshot, found: Sequence[Record]) -> list[Device]:
    known = {device.address: device for device in snapshot.devices if device.bus == "pci"}
    return [known.get(record["address"], Device(record["address"], "pci")) for record in found]


def _draw(session: Session, output: Output, roots: Sequence[pci_tree.Root], found: Sequence[Record]) -> None:
    from vfioctl.cli import drawing

    lines = list(drawing.draw(roots))
    if not lines:
        return
    table = [[(name, COLUMNS[name](record)) for name in output.columns] for record in found]
    words = field if output.format == "plain" else lambda cell: visible(text(cell))
    cells = [[(words(cell), style_of(name, cell)) for name, cell in row] for row in table]
    rows = drawing.columns(lines, () if output.noheadings else output.columns, cells)
    if output.format == "plain":
        sys.stdout.writelines("".join(text for text, _ in row).rstrip() + "\n" for row in rows)
        return
    from vfioctl.cli import terminal

    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        rows = [drawing.fit(row, width) for row in rows]
    terminal.print_lines(rows, session.color)
