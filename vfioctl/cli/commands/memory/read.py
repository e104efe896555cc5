"""vfioctl memory read"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import click

from vfioctl.cli.containers import required_container
from vfioctl.cli.mapping import file_error
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.policy.sizes import parse_iova, parse_size

if TYPE_CHECKING:
    from vfioctl.ops.keeper.client import Client


@click.command(
    "read",
    epilog="""\b
Examples:
  vfioctl memory read -c work --iova 0x100000 --size 4K --output page.bin
  vfioctl memory read -c work --iova 0x100000 --size 64 --hex
  vfioctl memory read -c work --iova 0 --size 1M | cmp - expected.bin

\b
Exit status:
  0 read, 2 bytes to a terminal, 3 not all of it is mapped or there is no such container, 7 the bytes are not there.""",
)
@required_container
@click.option("--iova", metavar="ADDR", required=True, help="Where to begin, hexadecimal.")
@click.option("--size", metavar="SIZE", required=True, help="How many bytes.")
@click.option("--output", metavar="FILE", help="Write them to a file instead of standard output.")
@click.option("--hex", "as_hex", is_flag=True, help="Print them as hexdump -C does, for people.")
@click.pass_obj
def command(session: Session, container: str, iova: str, size: str, output: str | None, as_hex: bool) -> None:
    """Read the bytes of mapped memory, as a device would at the same addresses, to standard output."""
    from vfioctl.ops.keeper import named

    if output is None and not as_hex and sys.stdout.isatty():
        raise UsageError(
            "these are raw bytes, and standard output is a terminal", hint="--hex, or --output FILE"
        )
    start, count = parse_iova(iova), parse_size(size)
    with named.connected(session.machine, container) as client:
        if output is None:
            _copy(client, start, count, sys.stdout.buffer, as_hex)
            sys.stdout.buffer.flush()
            return
        try:
            with open(output, "wb") as file:
                _copy(client, start, count, file, as_hex)
        except OSError as error:
            raise file_error(output, error) from error


def _copy(client: Client, iova: int, size: int, file: IO[bytes], as_hex: bool) -> None:
    from vfioctl.ops.keeper.operation import MOST_BYTES

    for done in range(0, size, MOST_BYTES):
        data = client.read(iova + done, min(MOST_BYTES, size - done))
        file.write(hexdump(iova + done, data) if as_hex else data)


def hexdump(start: int, data: bytes) -> bytes:
    """Sixteen bytes a line, after the address of the first."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        words = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        pairs = part.hex(" ")
        lines.append(f"{start + at:08x}  {pairs[:23]:23}  {pairs[24:]:23}  |{words}|\n")
    return "".join(lines).encode()
