"""vfioctl region dump"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import click

from vfioctl.cli import devices
from vfioctl.cli.arguments import SUBJECT
from vfioctl.cli.containers import container_option
from vfioctl.cli.output import Output, Record, emit, output_options, text
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError, VfioctlError

#: Bytes that are read in one go.
STEP = 1 << 20


@click.command(
    "dump",
    epilog="""\b
Examples:
  vfioctl region dump 0000:01:00.0 config
  vfioctl region dump 01:00.0 config --decode -J | jq -r '.capabilities[].name'
  vfioctl region dump 01:00.0 rom --output card.rom""",
)
@click.argument("device", metavar="DEVICE", type=SUBJECT)
@click.argument("region", metavar="REGION")
@click.option("--output", "target", metavar="FILE", help="Write the bytes to a file (- is stdout).")
@click.option("--decode", is_flag=True, help="Configuration space: registers and capabilities by name.")
@container_option
@output_options()
@click.pass_obj
def command(
    session: Session,
    device: str,
    region: str,
    target: str | None,
    decode: bool,
    container: str | None,
    output: Output,
) -> None:
    """Show all of a region as hexadecimal, as lspci -xxxx does, or write its bytes to a file.

    Reading can have effects: some devices have registers that change when they are read.
    """
    from vfioctl.ops.regions import Regions

    if decode and (target is not None or region.lower() not in ("config", "7")):
        raise UsageError("--decode is for configuration space, and not for --output")
    with devices.opened(session, device, container) as kept:
        regions = Regions(kept.name, kept.fd, session.timeout)
        found = regions.find(region)
        size = found.info.size
        pieces = (regions.copy(found, start, min(STEP, size - start)) for start in range(0, size, STEP))
        if target is not None:
            with _writer(target) as file:
                for piece in pieces:
                    file.write(piece)
            return
        as_document = output.format in ("json", "yaml")
        if not decode and not as_document:
            _print(pieces, size)
            return
        data = b"".join(pieces)
    document = {"schema_version": SCHEMA_VERSION, "device": kept.name, "region": found.name, "size": size}
    if not decode:
        emit(session, output, {**document, "data": data.hex()})
        return
    decoded = _decoded(data)
    if as_document:
        emit(session, output, {**document, **decoded})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(decoded)))


def _print(pieces: Iterable[bytes], size: int) -> None:
    digits = len(f"{size - 1:x}")
    offset = 0
    for piece in pieces:
        for start in range(0, len(piece), 16):
            sys.stdout.write(f"{offset + start:0{digits}x}: {piece[start : start + 16].hex(' ')}\n")
        offset += len(piece)


def _decoded(data: bytes) -> Record:
    from vfioctl.policy.pci_config import decode

    config = decode(data)
    return {
        "header_type": config.header_type,
        "multifunction": config.multifunction,
        "registers": [
            {"name": register.name, "offset": register.offset, "width": 8 * register.width, "value": value}
            for register, value in config.registers
        ],
        "capabilities": [capability._asdict() for capability in config.capabilities],
        "problems": list(config.problems),
    }


def _lines(decoded: Record) -> Iterator[str]:
    """``COMMAND=0x0006``, ``CAP_MSI.enabled=no``; a capability of which no field is known with its place only."""
    for register in decoded["registers"]:
        yield f"{register['name']}=0x{register['value']:0{register['width'] // 4}x}"
    for capability in decoded["capabilities"]:
        yield f"{capability['name']}.offset={capability['offset']:#x}"
        for key, value in capability["fields"].items():
            yield f"{capability['name']}.{key}={text(value)}"
    yield from (f"problem={problem}" for problem in decoded["problems"])


@contextmanager
def _writer(target: str) -> Iterator[BinaryIO]:
    if target == "-":
        sys.stdout.flush()
        yield cast(BinaryIO, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    try:
        with open(target, "wb") as file:
            yield file
    except OSError as error:
        raise VfioctlError(
            f"--output {target}: {error.strerror}", subject=target, errno=error.errno, code="output"
        ) from error
