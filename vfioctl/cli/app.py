"""The ``vfioctl`` command itself: its own options, lazy sub-commands, and errors turned into exit statuses."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import click

from vfioctl import __version__
from vfioctl.cli import messages
from vfioctl.cli.registry import COMMANDS, FAMILIES, children, section_of
from vfioctl.cli.session import Session
from vfioctl.errors import ExitStatus, UsageError, VfioctlError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vfioctl.host.machine import Machine


class _ReaderGone(Exception):
    """The reader of stdout has gone. click would make an exit with 1 of a BrokenPipeError, and that is a clean no."""


class LazyGroup(click.Group):
    """``vfioctl`` itself, or a ``family`` of commands. Imports a command's module when the command is run, or its own
    --help asked for, and not before."""

    family = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(children(self.family))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = f"{self.family} {cmd_name}".strip()
        if name in FAMILIES:
            return _family(name)
        entry = COMMANDS.get(name)
        if entry is None:
            return None
        module = importlib.import_module(f"vfioctl.cli.commands.{entry.module}")
        return cast(click.Command, module.command)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:  # of --help
            raise _ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], children(self.family)
        if name not in known and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            called = f"vfioctl {self.family}".strip()
            hint = f"did you mean {close[0]}?" if close else f"{called} --help lists the commands"
            whole = f"{self.family} {name}".strip()
            raise UsageError(f"there is no command {whole!r}", hint=hint, subject=name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = children(self.family)
        sections = {name: "Commands" if self.family else section_of(name) for name in known}
        for section in dict.fromkeys(sections.values()):
            with formatter.section(section):
                formatter.write_dl([(name, known[name]) for name in known if sections[name] == section])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        items = [
            CompletionItem(name, help=help)
            for name, help in children(self.family).items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@cache
def _family(name: str) -> LazyGroup:
    group = LazyGroup(name, help=FAMILIES[name], no_args_is_help=True)
    group.family = name
    return group


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 yes or done, 1 a clean no, 2 usage, 3 not found, 4 permission, 5 refused by a guard, "
    "6 busy, 7 refused by the kernel, 8 failed and put back, 9 failed and not all put back, 124 deadline, 141 nobody "
    "reads the answer (SIGPIPE).",
)
@click.option(
    "--root",
    metavar="ARCHIVE|DIR",
    shell_complete=_files,
    help="Look at a snapshot, or at the sys, proc and dev under DIR, instead of at this host.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colour tables: auto does on a terminal, unless NO_COLOR is set.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=86400),
    default=30.0,
    metavar="SECONDS",
    help="How long the kernel or udev may take for one step.  [default: 30]",
)
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is done, step by step.")
@click.version_option(__version__, prog_name="vfioctl", message="%(prog)s %(version)s")
@click.pass_context
def vfioctl(ctx: click.Context, root: str | None, color: str, timeout: float, verbose: bool) -> None:
    """Administer VFIO device assignment: list IOMMU groups, check viability, bind devices to a VFIO driver,
    permit users, and map DMA."""
    machine = cast("Machine | None", ctx.obj)
    if timeout != timeout:
        raise UsageError("--timeout: nan is no number of seconds")
    asked = root
    if root is not None and not os.path.isdir(root):
        if not os.path.exists(root):
            raise UsageError(
                f"--root: there is no {root!r}", hint="vfioctl snapshot -o FILE makes one", subject=root
            )
        if not os.path.isfile(root):
            raise UsageError(f"--root: {root!r} is no directory, and no archive of a snapshot", subject=root)
        from vfioctl.cli.roots import unpacked

        root = ctx.with_resource(unpacked(root, timeout))
    ctx.obj = Session(root, color, timeout, verbose, machine, asked)


def run(args: Sequence[str], machine: Machine | None = None) -> int:
    """Runs a command line and returns the exit status; ``machine`` stands in for the running host in tests."""
    wants_json = _wants_json(args)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (>&-): the answer is the exit status
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        result: Any = vfioctl.main(list(args), prog_name="vfioctl", obj=machine, standalone_mode=False)
        _flush()
    except VfioctlError as error:
        messages.error(error, as_json=wants_json)
        return int(error.status)
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(ExitStatus.USAGE)
        messages.error(_usage(error), as_json=wants_json)
        return int(ExitStatus.USAGE)
    except click.Abort:
        messages.note("interrupted")
        return 130
    except (BrokenPipeError, _ReaderGone):
        # To head, or grep -q: end quietly, as a program killed by SIGPIPE would.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except PermissionError as error:
        messages.error(_unreadable(error), as_json=wants_json)
        return int(ExitStatus.PERMISSION)
    except OSError as error:
        messages.error(_unforeseen(error), as_json=wants_json)
        return int(ExitStatus.KERNEL)
    return int(result) if isinstance(result, int) else int(ExitStatus.OK)


def _flush() -> None:
    """Raises VfioctlError when the answer does not reach stdout: what was asked for has been done by then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it is not to be tried again at the end
        raise VfioctlError(
            f"done, but the answer could not be written to stdout: {error.strerror}",
            hint="make room, or send it elsewhere; vfioctl show tells what is there now",
            errno=error.errno,
            code="output",
        ) from error


def _wants_json(args: Sequence[str]) -> bool:
    """Whether errors are to be JSON: known even when the command line itself cannot be parsed."""
    before = ""
    for arg in args:
        if arg == "--":
            return False
        if arg in ("--json", "--format=json") or (before == "--format" and arg == "json"):
            return True
        if arg[:1] == "-" and arg[1:].isalpha() and "J" in arg:  # -J, or among others: -nJ
            return True
        before = arg
    return False


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        root = context.find_root()
        if context is not root and any(error.option_name in each.opts for each in root.command.params):
            return UsageError(
                f"no such option {error.option_name!r} after {context.info_name!r}",
                hint=f"it goes before the command: {root.info_name} {error.option_name} ... {context.info_name}",
            )
    hint = f"{context.command_path} --help explains it" if context is not None else None
    message = error.format_message()
    return UsageError(message[:1].lower() + message[1:].removesuffix("."), hint=hint)


def _unreadable(error: PermissionError) -> VfioctlError:
    return VfioctlError(
        f"{error.filename or 'a file'} may not be read: {error.strerror}",
        hint="run it as root"
        if os.geteuid() != 0
        else "root may not read it either: look at what stands in the way (a container, a security module, lockdown)",
        subject=str(error.filename) if error.filename else None,
        errno=error.errno,
        code="permission",
        status=ExitStatus.PERMISSION,
    )


_SYSTEM_CURES = {
    errno.ENOSPC: "make room there; nothing has been changed",
    errno.EROFS: "it is read-only here: a container, or a file system that has failed",
    errno.ENOTDIR: "something else stands where a directory should be: look at it, and remove it",
    errno.EISDIR: "a directory stands where a file should be: look at it, and remove it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the whole machine has too many files open: raise /proc/sys/fs/file-max",
    errno.ENOMEM: "free memory",
    errno.EDQUOT: "make room there, or have the quota raised; nothing has been changed",
    errno.ELOOP: "links lead in a circle there, or none is allowed: look at it, and remove it",
    errno.ENOENT: "it went away meanwhile: try again",
    errno.ENODEV: "the device went away meanwhile: vfioctl list-devices shows what is there",
    errno.EIO: "the disk or the device does not answer: the kernel log says more (dmesg)",
    errno.EAGAIN: "no process can be started: a limit of processes is reached (ulimit -u, or that of a cgroup)",
}


def _unforeseen(error: OSError) -> VfioctlError:
    return VfioctlError(
        f"{error.filename or 'the system'}: {error.strerror or error}",
        hint=_SYSTEM_CURES.get(error.errno or 0, "the kernel log may say more (dmesg)"),
        subject=str(error.filename) if error.filename else None,
        errno=error.errno,
        code="system",
        status=ExitStatus.KERNEL,
    )
