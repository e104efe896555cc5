"""vfioctl dirty start"""

from __future__ import annotations

import click

from vfioctl.cli.containers import changed_output, emit_changed, required_container
from vfioctl.cli.output import Output
from vfioctl.cli.session import Session


@click.command(
    "start",
    epilog="""\b
Examples:
  vfioctl dirty start -c work
  vfioctl dirty start -c work && vfioctl dirty read -c work -J""",
)
@required_container
@changed_output
@click.pass_obj
def command(session: Session, container: str, output: Output) -> None:
    """Begin to note which pages of the mappings devices write.

    type1v2 counts everything that is mapped as written, unless all of the container's devices are mediated ones;
    iommufd asks the IOMMU, where that is capable of it, and says so where it is not.
    """
    from vfioctl.ops.keeper import named

    with named.connected(session.machine, container) as client:
        client.call("dirty-start")
    emit_changed(session, output, container)
