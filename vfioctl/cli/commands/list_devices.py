"""vfioctl list-devices"""

from __future__ import annotations

import fnmatch
from typing import Any

import click

from vfioctl.cli import records
from vfioctl.cli.arguments import SUBJECT, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.model import Device, IommuGroup
from vfioctl.policy.subjects import find_group
from vfioctl.policy.viability import judge

COLUMNS: Columns = {
    "address": lambda r: r["address"],
    "bus": lambda r: r["bus"],
    "group": lambda r: r["group"],
    "class": lambda r: r["class"],
    "ids": lambda r: r["vendor"] and f"{r['vendor']}:{r['device']}",
    "subsystem": lambda r: r["subsystem_vendor"] and f"{r['subsystem_vendor']}:{r['subsystem_device']}",
    "driver": lambda r: r["driver"],
    "override": lambda r: r["driver_override"],
    "viable": lambda r: r["viable"],
    "usable": lambda r: r["usable"],
    "vfio_dev": lambda r: r["vfio_dev"],
    "cdev": lambda r: r["cdev"] and r["cdev"]["path"],
    "node": lambda r: r["node"] and r["node"]["path"],
    "name": lambda r: r.get("name"),
    "class_name": lambda r: r.get("class_name"),
}
DEFAULT = ("address", "group", "class", "ids", "driver", "override", "viable", "node")


@click.command(
    "list-devices",
    epilog="""\b
Examples:
  vfioctl list-devices --driver vfio-pci
  vfioctl list-devices --class 02 --viable -n -o address
  vfioctl list-devices --vendor 8086 --names
  vfioctl list-devices -J | jq -r '.devices[] | select(.group == null) | .address'""",
)
@click.argument("subjects", metavar="[GROUP|DEVICE]...", nargs=-1, type=SUBJECT)
@click.option("--driver", metavar="NAME", help='With this driver; "-" for none; * and ? match.')
@click.option("--class", "class_", metavar="HEX", help="Whose class begins with these digits (02, 0300).")
@click.option("--vendor", metavar="HEX", help="With this vendor id, or vendor:device.")
@click.option("--bus", metavar="NAME", help="On this bus.")
@click.option("--group", metavar="N", type=click.IntRange(min=0), help="In this group.")
@click.option("--viable/--not-viable", default=None, help="Whose group is viable, or is not.")
@click.option("--names", is_flag=True, help="Add names from the udev hardware database.")
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    subjects: tuple[str, ...],
    driver: str | None,
    class_: str | None,
    vendor: str | None,
    bus: str | None,
    group: int | None,
    viable: bool | None,
    names: bool,
    output: Output,
) -> None:
    """List devices: every PCI device, and devices of other buses that are in an IOMMU group.

    Without arguments all of them; a GROUP stands for its members. The filters narrow the list further.
    """
    snapshot = session.snapshot(subjects)
    verdicts = {g.id: judge(g, snapshot.kernel) for g in snapshot.groups}
    devices = list(snapshot.devices)
    if subjects:
        wanted = _members(resolve_all(session, snapshot, subjects))
        devices = [d for d in devices if d.key in wanted]
    if group is not None:
        find_group(snapshot, group)  # or there is none
        devices = [d for d in devices if d.group == group]
    if driver is not None:
        devices = [d for d in devices if fnmatch.fnmatchcase(d.driver or "-", driver)]
    if bus is not None:
        devices = [d for d in devices if d.bus == bus]
    if class_ is not None:
        digits = hex_digits(class_, "--class")
        devices = [d for d in devices if d.pci and d.pci.class_.startswith(digits)]
    if vendor is not None:
        first, _, second = vendor.partition(":")
        wanted_ids = (
            hex_digits(first, "--vendor").zfill(4),
            hex_digits(second, "--vendor").zfill(4) if second else None,
        )
        devices = [
            d
            for d in devices
            if d.pci and d.pci.vendor == wanted_ids[0] and wanted_ids[1] in (None, d.pci.device)
        ]
    if viable is not None:
        devices = [d for d in devices if d.group is not None and verdicts[d.group].viable == viable]
    found = []
    for device in devices:
        verdict = None if device.group is None else verdicts[device.group]
        found.append(records.device(device, verdict))
    if names:
        add_names(session, devices, found)
        if not output.chosen:
            output = output._replace(columns=(*DEFAULT, "name"))
    emit(
        session,
        output,
        records.document("devices", found),
        found,
        COLUMNS,
    )


def add_names(session: Session, devices: list[Device], found: list[dict[str, Any]]) -> None:
    """Adds the hardware database's names to device records: null where it has none."""
    from vfioctl.host.hwdb import HardwareDatabase

    with HardwareDatabase(session.root) as database:
        for device, record in zip(devices, found, strict=True):
            entry = database.look_up(device.modalias or "")
            vendor, model = entry.get("ID_VENDOR_FROM_DATABASE"), entry.get("ID_MODEL_FROM_DATABASE")
            record["vendor_name"] = vendor
            record["device_name"] = model
            record["class_name"] = entry.get("ID_PCI_SUBCLASS_FROM_DATABASE") or entry.get(
                "ID_PCI_CLASS_FROM_DATABASE"
            )
            record["name"] = " ".join(filter(None, (vendor, model))) or None


def _members(found: list[IommuGroup | Device]) -> set[str]:
    keys = set()
    for subject in found:
        keys |= {d.key for d in subject.devices} if isinstance(subject, IommuGroup) else {subject.key}
    return keys


def hex_digits(text: str, option: str) -> str:
    """The digits of an option's value. Raises UsageError."""
    digits = text.lower().removeprefix("0x")
    if not digits or any(c not in "0123456789abcdef" for c in digits):
        raise UsageError(f"{option}: {text!r} is not hexadecimal", subject=text)
    return digits
