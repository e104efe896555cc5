"""vfioctl region list"""

from __future__ import annotations

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION, device_region
from vfioctl.cli.session import Session

COLUMNS: Columns = {
    "index": lambda r: r["index"],
    "name": lambda r: r["name"],
    "size": lambda r: f"{r['size']:#x}",
    "flags": lambda r: r["flags"],
    "space": lambda r: r["space"],
    "areas": lambda r: (
        r["areas"] and [f"{a['offset']:#x}-{a['offset'] + a['size'] - 1:#x}" for a in r["areas"]]
    ),
    "msix_mappable": lambda r: r["msix_mappable"],
}
DEFAULT = ("index", "name", "size", "flags", "space")


@click.command(
    "list",
    epilog="""\b
Examples:
  vfioctl region list 0000:01:00.0
  vfioctl region list 01:00.0 -c work -J | jq '.regions[] | select(.flags | index("mmap")) | .name'""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that the device does not have.")
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, device: str, everything: bool, container: str | None, output: Output) -> None:
    """List the regions of a device: its BARs, ROM, configuration space, VGA, and those of its own kind.

    A region is called by its name or its number. Those with the flag mmap are accessed directly, all others by the
    kernel; areas are the parts that can be mapped where not all can.
    """
    from vfioctl.ops.regions import Regions

    with devices.opened(session, device, container) as kept:
        found = Regions(kept.name, kept.fd, session.timeout).all
    records = [device_region(region) for region in found if everything or region.info.size]
    emit(
        session,
        output,
        {"schema_version": SCHEMA_VERSION, "device": kept.name, "regions": records},
        records,
        COLUMNS,
    )
