"""vfioctl eeh inject"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import parse_iova
from vfioctl.uapi.spapr import EEH_ERR_FUNC


@click.command(
    "inject",
    epilog="""\b
Examples:
  vfioctl eeh inject ld-cfg-addr -c work
  vfioctl eeh inject dma-wr-addr -c work --type 64 --addr 0x100000 --mask 0xfffffffffffff000""",
)
@click.argument(
    "function",
    metavar="FUNCTION",
    type=click.Choice([name.lower().replace("_", "-") for name in EEH_ERR_FUNC], case_sensitive=False),
)
@required_container
@click.option(
    "--type",
    "bits",
    type=click.Choice(["32", "64"]),
    default="32",
    show_default=True,
    help="How wide its addresses are.",
)
@click.option("--addr", metavar="ADDR", default="0", help="The address where it happens, hexadecimal.")
@click.option(
    "--mask", metavar="MASK", default="0", help="Which bits of the address count; 0: it happens anywhere."
)
@changed_output
@click.pass_obj
def command(
    session: Session, function: str, container: str, bits: str, addr: str, mask: str, output: Output
) -> None:
    """Let a PCI error happen to the group of a container, to try what becomes of it.

    FUNCTION is one of EEH_ERR_FUNC_* of the kernel, in small letters: a load (ld) or store (st) of memory (mem), I/O
    ports (io) or configuration space (cfg), or a device reading (dma-rd) or writing (dma-wr); and what is wrong in it:
    the address (addr), the data, the master or the target.
    """
    from vfioctl.ops.keeper import named

    fields = {
        "bits": int(bits),
        "function": function.upper().replace("-", "_"),
        "address": parse_iova(addr),
        "mask": parse_iova(mask),
    }
    with named.connected(session.machine, container) as client:
        client.call("eeh-inject", fields)
    emit_changed(session, output, container)
