"""vfioctl ioas allow"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError
from vfioctl.policy.sizes import parse_iova


@click.command(
    "allow",
    epilog="""\b
Examples:
  vfioctl ioas allow -c work 0x0-0xfedfffff 0x100000000-0x1ffffffff
  vfioctl ioas allow -c work --any""",
)
@click.argument("ranges", metavar="FIRST-LAST...", nargs=-1)
@required_container
@click.option("--any", "anywhere", is_flag=True, help="Take the promise back.")
@changed_output
@click.pass_obj
def command(
    session: Session, ranges: tuple[str, ...], container: str, anywhere: bool, output: Output
) -> None:
    """Promise to map in these ranges only, the last address included.

    From then on the kernel refuses devices that could not bear it, when they are added, rather than take ranges away.
    """
    from vfioctl.ops.keeper import named

    if anywhere == bool(ranges):
        raise UsageError("which ranges? FIRST-LAST, or --any")
    with named.connected(session.machine, container) as client:
        client.call("ioas-allow", {"ranges": [_range(text) for text in ranges]})
    emit_changed(session, output, container)


def _range(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if not dash:
        raise UsageError(f"{text!r} is no range", hint="FIRST-LAST, both hexadecimal", subject=text)
    return [parse_iova(first), parse_iova(last)]
