"""vfioctl region read"""

from __future__ import annotations

import sys

import click

from vfioctl.cli import devices, registers
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.registers import width_option
from vfioctl.cli.session import Session


@click.command(
    "read",
    epilog="""\b
Examples:
  vfioctl region read 0000:01:00.0 bar0 0x8
  vfioctl region read 01:00.0 config COMMAND
  vfioctl region read 01:00.0 config CAP_EXP+0xa --width 16
  vfioctl region read 01:00.0 bar0 0 --count 64 --raw > registers""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("region", metavar="REGION")
@click.argument("where", metavar="OFFSET|REGISTER")
@width_option
@click.option(
    "--count",
    type=click.IntRange(1, 1 << 24),
    default=1,
    show_default=True,
    metavar="N",
    help="How many accesses, one behind the other.",
)
@click.option("--raw", is_flag=True, help="The bytes themselves, as the device has them.")
@container_option
@output_options()
@click.pass_obj
def command(
    session: Session,
    device: str,
    region: str,
    where: str,
    width: str | None,
    count: int,
    raw: bool,
    container: str | None,
    output: Output,
) -> None:
    """Read a region of a device: a value a line, in hexadecimal, with all its digits.

    REGION is a name or number as region list shows it. OFFSET is decimal, or hexadecimal with 0x; in configuration
    space a register may be called by its name, as setpci has it: COMMAND, BASE_ADDRESS_0, CAP_PM+4, ECAP_AER. Each
    value is one access of exactly --width bits, and little-endian as all of PCI is, on every machine.
    """
    from vfioctl.host.region import mappable
    from vfioctl.ops.regions import Regions

    with devices.opened(session, device, container) as kept:
        regions = Regions(kept.name, kept.fd, session.timeout)
        found = regions.find(region)
        place = registers.place(regions, found, where, width)
        data = regions.read(found, place.offset, place.width, count)
    if raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    values = [int.from_bytes(data[i : i + place.width], "little") for i in range(0, len(data), place.width)]
    if output.format in ("json", "yaml"):
        document = {
            "schema_version": SCHEMA_VERSION,
            "device": kept.name,
            "region": found.name,
            "register": place.register,
            "offset": place.offset,
            "width": 8 * place.width,
            "access": "mmap" if mappable(found.info, place.offset, len(data)) else "pread",
            "values": values,
        }
        emit(session, output, document)
        return
    sys.stdout.write("".join(f"0x{value:0{2 * place.width}x}\n" for value in values))
