"""vfioctl run"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vfioctl.cli import assigned, messages
from vfioctl.cli.arguments import Subject
from vfioctl.cli.changing import bind_planner, binding_options, wait_option
from vfioctl.cli.permissions import warn_container
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vfioctl.ops.assign import Done

_WORDS = "vfioctl.words"


class _Subject(Subject):
    """What stands behind ``--`` is not ours to complete."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if _WORDS in ctx.meta:
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, param, incomplete)


class _Command(click.Command):
    """Everything behind the first ``--`` is the command, as it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            index = args.index("--")
            ctx.meta[_WORDS] = args[index + 1 :]
            args = args[:index]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- CMD [ARG]..."]


@click.command(
    "run",
    cls=_Command,
    epilog="""\b
Examples:
  vfioctl run 0000:01:00.0 -- ./driver
  vfioctl run 26 --user alice --memlock 8G -- qemu-system-x86_64 -device vfio-pci,host=01:00.0
  vfioctl run eth0 --group -- sh -c 'vfioctl map $VFIOCTL_GROUPS --size 1M'

\b
Exit status:
  That of CMD; 128+N when signal N ended it, 126 when it cannot be executed, 127 when there is no such command.
  9 CMD has ended and not everything could be given back: it says what, and vfioctl recover does the rest.
  Before CMD starts, that of bind. A status of CMD's own that means something else to vfioctl cannot be told from
  vfioctl's: whoever needs to know has CMD write it down.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=_Subject())
@binding_options
@click.option("--user", metavar="USER", help="Run CMD as this user (name or uid); default: who called sudo.")
@click.option("--memlock", metavar="SIZE", help="How much memory CMD may lock.  [default: unlimited]")
@wait_option
@click.pass_context
def command(
    context: click.Context,
    subjects: tuple[str, ...],
    whole: bool,
    driver: str | None,
    allow: tuple[str, ...],
    user: str | None,
    memlock: str | None,
    wait: float | None,
) -> int:
    """Lend devices to a command: bind them, run CMD as an unprivileged user who may open them, give them back.

    Devices are bound as bind does it, all of them or none, and however CMD ends they get their drivers, overrides,
    owners and modes back. CMD runs without any privileges and cannot gain any (no_new_privs), as the user who called
    sudo, pkexec or doas, or who has logged in, or --user; it may lock memory without limit, or --memlock. It keeps the
    terminal, the standard streams and the directory, and finds in its environment VFIOCTL_DEVICES, VFIOCTL_GROUPS and
    VFIOCTL_NODES (addresses, group numbers, and nodes to open, separated by blanks).

    SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1 and SIGUSR2 that are sent to vfioctl go on to CMD. Processes that CMD
    leaves behind with a device open are waited for, as long as --timeout allows. When vfioctl is killed, CMD gets
    SIGTERM, and vfioctl recover gives the devices back; while it lives, no other vfioctl changes them (guard lent).
    """
    import os

    from vfioctl.host.files import read
    from vfioctl.ops import run
    from vfioctl.ops.bind import BindOptions
    from vfioctl.policy.caller import caller
    from vfioctl.policy.sizes import parse_size

    session: Session = context.obj
    words = context.meta.get(_WORDS)
    if not words:
        raise UsageError("run what?", hint="vfioctl run DEVICE... -- CMD [ARG]...")
    limit = None if memlock is None else parse_size(memlock)
    if user is None:
        user = caller(os.environ, read("/proc/self/loginuid"), os.getuid())
    account = run.borrower(user)
    machine = session.machine

    def ready(done: Done) -> None:
        assigned.warn_unusable(machine, done)
        if account.uid != 0:
            warn_container(machine)

    options = BindOptions(driver, allow=frozenset(allow))
    plan = bind_planner(session, subjects, whole, options, [])
    order = run.Order(words, account, limit, os.environ)
    try:
        return run.run(machine, plan, order, session.tell, ready, wait)
    except run.NotExecuted as error:
        messages.error(error)
        return error.number
