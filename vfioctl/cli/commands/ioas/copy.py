"""vfioctl ioas copy"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import parse_iova, parse_size


@click.command(
    "copy",
    epilog="""\b
Examples:
  vfioctl ioas copy 5 -c work --from 0x100000 --size 64K
  vfioctl ioas copy 5 -c work --from 0x100000 --size 4K --iova 0x0 --prot r""",
)
@click.argument("ioas", metavar="IOAS", type=click.IntRange(min=0))
@required_container
@click.option("--from", "source", metavar="ADDR", required=True, help="Where it is mapped in the first one.")
@click.option("--size", metavar="SIZE", required=True, help="Bytes to copy; suffixes K, M, G, T, P.")
@click.option("--iova", metavar="ADDR", help="Where it is to be; default: where it is in the first one.")
@click.option(
    "--prot",
    type=click.Choice(["rw", "r", "w"]),
    default="rw",
    show_default=True,
    help="What devices may do there.",
)
@changed_output
@click.pass_obj
def command(
    session: Session,
    ioas: int,
    container: str,
    source: str,
    size: str,
    iova: str | None,
    prot: str,
    output: Output,
) -> None:
    """Map in another address space what is mapped in the container: the same memory, which is not charged twice."""
    from vfioctl.ops.keeper import named

    fields = {
        "ioas": ioas,
        "source": parse_iova(source),
        "size": parse_size(size),
        "iova": None if iova is None else parse_iova(iova),
        "prot": prot,
    }
    with named.connected(session.machine, container) as client:
        client.call("ioas-copy", fields)
    emit_changed(session, output, container)
