"""vfioctl container exec"""

from __future__ import annotations

import click

from vfioctl.cli import messages
from vfioctl.cli.containers import CONTAINER
from vfioctl.cli.session import Session
from vfioctl.errors import PermissionDenied


@click.command(
    "exec",
    epilog="""\b
Examples:
  vfioctl container exec work -- ./driver --verbose
  vfioctl container exec work --user alice --device 0000:01:00.0 -- python3 driver.py

\b
Exit status:
  That of CMD; 126 when it cannot be executed, 127 when there is no such command; 4 another user than root asks
  for --user.""",
)
@click.argument("name", metavar="NAME", type=CONTAINER)
@click.argument("words", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--user", metavar="USER", help="Run CMD as this user (name or uid); default: who called sudo.")
@click.option("--memlock", metavar="SIZE", help="How much memory CMD may lock.  [default: unlimited]")
@click.option(
    "--device", "devices", metavar="DEVICE", multiple=True, help="Open this device first; may be repeated."
)
@click.pass_obj
def command(
    session: Session,
    name: str,
    words: tuple[str, ...],
    user: str | None,
    memlock: str | None,
    devices: tuple[str, ...],
) -> int:
    """Hand the descriptors of an open container to a program: the container or iommufd, its groups, its open devices.

    CMD takes the place of vfioctl. It finds the descriptors from 3 on, as services of systemd do: LISTEN_FDS says how
    many, LISTEN_FDNAMES what each is, separated by colons (container, iommufd, group-26, device-0000_01_00.0), and
    LISTEN_PID is its own. Called by root it runs without any privileges and cannot gain any (no_new_privs), as --user
    or the user who called sudo; its limit of locked memory is raised, for what it maps is charged to it.
    """
    import os

    from vfioctl.cli.arguments import resolve_all
    from vfioctl.host.child import Command, replace
    from vfioctl.host.files import read
    from vfioctl.model import Device
    from vfioctl.ops import run
    from vfioctl.ops.keeper import named
    from vfioctl.policy.caller import caller
    from vfioctl.policy.sizes import parse_size

    machine = session.machine
    account = None
    if user is not None or os.geteuid() == 0:
        account = run.borrower(user or caller(os.environ, read("/proc/self/loginuid"), os.getuid()))
        if os.geteuid() not in (0, account.uid):
            raise PermissionDenied("only root may run a program as another user", hint="leave --user out")
        if os.geteuid() != 0:  # it is the caller's anyway
            account = None
    limit = None if memlock is None else parse_size(memlock)
    found = resolve_all(session, session.snapshot(devices), devices) if devices else []
    with named.connected(machine, name) as client:
        for device in found:
            if isinstance(device, Device):
                os.close(client.open_device(device.address))
        descriptors = client.descriptors()
    try:
        path = run.find(machine, words[0], os.environ, account, limit)
        environment = {
            **os.environ,
            **(run.of_account(account) if account is not None else {}),
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(descriptors)),
            "LISTEN_FDNAMES": ":".join(descriptors),
        }
        try:
            replace(Command(words, path, account, limit, environment), list(descriptors.values()))
        except OSError as error:
            raise run.NotExecuted(path, error) from error
    except run.NotExecuted as error:
        messages.error(error)
        return error.number
