"""vfioctl region write"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from vfioctl.cli import devices, messages, registers
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.mapping import opened_for_reading
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.registers import Place, width_option
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from vfioctl.ops.regions import Region, Regions

COLUMNS: Columns = {
    "offset": lambda r: f"{r['offset']:#x}",
    "register": lambda r: r["register"],
    "width": lambda r: r["width"],
    "value": lambda r: _hex(r, "value"),
    "before": lambda r: _hex(r, "before"),
    "after": lambda r: _hex(r, "after"),
}
DEFAULT = ("offset", "value", "before", "after")


@click.command(
    "write",
    epilog="""\b
Examples:
  vfioctl region write 0000:01:00.0 bar0 0x60 0x1 -c work
  vfioctl region write 01:00.0 config COMMAND 0x4 --mask 0x4 --check -c work
  vfioctl region write 01:00.0 bar0 0x80=0x100000 0x88=0x40000 0x90=4096 0x98=1 --width 64 -c work
  vfioctl region write 01:00.0 bar2 0x1000 --input firmware.bin -c work

\b
Exit status:
  0 written, 1 with --check: something else was read back.""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("region", metavar="REGION")
@click.argument("words", metavar="OFFSET VALUE | OFFSET=VALUE...", nargs=-1, required=True)
@width_option
@click.option(
    "--mask", metavar="BITS", help="Write these bits only: the others are read, and written as they are."
)
@click.option("--check", is_flag=True, help="Read back, and compare (with --mask, those bits).")
@click.option(
    "--input", "source", metavar="FILE", help="Write the bytes of a file (- is stdin) from OFFSET on."
)
@container_option
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(
    session: Session,
    device: str,
    region: str,
    words: tuple[str, ...],
    width: str | None,
    mask: str | None,
    check: bool,
    source: str | None,
    container: str | None,
    output: Output,
) -> int:
    """Write to a region of a device, in the order of the arguments.

    OFFSET may be a register's name, as with region read. Each value is one access of exactly --width bits, and
    little-endian as all of PCI is, on every machine. Nothing is printed unless --check, or a format, asks for it.

    Without an open container that holds the device it is opened for this command only, and reset (if it can be) when
    that ends: what was written may not stay.
    """
    from vfioctl.ops.regions import Regions
    from vfioctl.policy.sizes import parse_number

    bits = None if mask is None else parse_number(mask, "--mask")
    if source is not None and (mask or check):
        raise UsageError("--input goes with neither --mask nor --check")
    with devices.opened(session, device, container) as kept:
        regions = Regions(kept.name, kept.fd, session.timeout)
        found = regions.find(region)
        if source is not None:
            if len(words) != 1:
                raise UsageError("--input takes one OFFSET, and no value")
            place = registers.place(regions, found, words[0], width)
            # One value more than fits is refused, and no more is read of what has no end.
            with opened_for_reading(source) as file:
                data = file.read(max(0, found.info.size - place.offset) + place.width)
            regions.write(found, [_write(place, data)])
            written = [_record(place, None)]
        else:
            wanted = list(_values(regions, found, words, width))
            written = _store(regions, found, wanted, bits, check)
        if kept.temporary:
            messages.warn(
                f"{kept.name} was opened for this command only, and is reset (if it can be) as it ends: "
                "what was written may be lost; vfioctl container open keeps it"
            )
    if check or output.format in ("json", "yaml"):
        emit(
            session,
            output,
            {"schema_version": SCHEMA_VERSION, "device": kept.name, "region": found.name, "writes": written},
            written,
            COLUMNS,
        )
    good = True
    for record in written if check else ():
        kept_bits = bits if bits is not None else (1 << record["width"]) - 1
        if (record["after"] ^ record["value"]) & kept_bits:
            messages.note(
                f"{record['offset']:#x} reads back as {_hex(record, 'after')}, not {_hex(record, 'value')}"
            )
            good = False
    return int(ExitStatus.OK if good else ExitStatus.NO)


def _store(
    regions: Regions, region: Region, wanted: list[tuple[Place, int]], mask: int | None, check: bool
) -> list[dict[str, Any]]:
    """Without --mask and --check all in one go; their reads have to come between."""
    written = [_record(place, value) for place, value in wanted]
    if mask is None and not check:
        regions.write(region, [_write(place, _packed(place, value)) for place, value in wanted])
        return written
    for (place, value), record in zip(wanted, written, strict=True):
        if mask is not None:
            record["before"] = int.from_bytes(regions.read(region, place.offset, place.width), "little")
            value = record["value"] = record["before"] & ~mask | value & mask
        regions.write(region, [_write(place, _packed(place, value))])
        if check:
            record["after"] = int.from_bytes(regions.read(region, place.offset, place.width), "little")
    return written


def _values(
    regions: Regions, region: Region, words: tuple[str, ...], width: str | None
) -> Iterator[tuple[Place, int]]:
    from vfioctl.policy.sizes import parse_number

    pairs = [word.partition("=") for word in words]
    if len(words) == 2 and not any("=" in word for word in words):
        pairs = [(words[0], "=", words[1])]
    for where, equals, text in pairs:
        if not equals:
            raise UsageError(f"{where!r}: OFFSET VALUE, or OFFSET=VALUE once or more", subject=where)
        place = registers.place(regions, region, where, width)
        value = parse_number(text, where)
        if value >> 8 * place.width:
            raise UsageError(f"{text} does not fit into {8 * place.width} bits", subject=where)
        yield place, value


def _write(place: Place, data: bytes) -> Any:
    from vfioctl.ops.regions import Write

    return Write(place.offset, place.width, data)


def _packed(place: Place, value: int) -> bytes:
    return value.to_bytes(place.width, "little")


def _record(place: Place, value: int | None) -> dict[str, Any]:
    return {
        "offset": place.offset,
        "register": place.register,
        "width": 8 * place.width,
        "value": value,
        "before": None,
        "after": None,
    }


def _hex(record: Any, key: str) -> str | None:
    return None if record[key] is None else f"0x{record[key]:0{record['width'] // 4}x}"
