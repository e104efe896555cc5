"""vfioctl snapshot"""

from __future__ import annotations

import sys
from typing import Any

import click

from vfioctl.cli import messages
from vfioctl.cli.output import Output, emit, output_options, text
from vfioctl.cli.records import SCHEMA_VERSION
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError, VfioctlError, visible

_DEFAULT = "vfioctl-snapshot.tar.gz"


@click.command(
    "snapshot",
    epilog="""\b
Examples:
  vfioctl snapshot
  vfioctl snapshot -o host.tar.zst && vfioctl --root host.tar.zst list-groups
  vfioctl snapshot --no-redact -o - | ssh desk 'cat > host.tar.gz'
  vfioctl --root private.tar.gz snapshot -o public.tar.gz

\b
Exit status:
  0 written, 2 the file is there already, or everybody may write to its directory, 4 it may not be written, 7 it could
  not be written.""",
)
@click.option(
    "-o",
    "--output",
    "target",
    default=_DEFAULT,
    show_default=True,
    metavar="FILE",
    help="Where to: a .tar.gz, or a .tar.zst where zstd is installed; - is stdout, as .tar.gz.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option(
    "--no-redact",
    is_flag=True,
    help="Keep serial numbers, addresses of the network, labels, and names of people.",
)
@output_options()
@click.pass_obj
def command(session: Session, target: str, overwrite: bool, no_redact: bool, output: Output) -> None:
    """Write an archive of what the looking commands read, on which --root runs them with the same answers.

    It holds the files of sysfs and procfs that are about devices, their groups and drivers, what the host uses devices
    for, and who holds them; run as root, it holds most. Serial numbers, addresses of the network, UUIDs, labels, and
    the names of hosts, people and virtual machines are replaced, each by a word of its own. Look through it all the
    same before you publish it: tar -xzf shows all that there is.
    """
    from vfioctl.host.archive import compression_of, pack
    from vfioctl.host.new_file import write_new
    from vfioctl.ops.snapshot import take

    to_stdout = target == "-"
    if to_stdout:
        _refuse_terminal(output)
    compression = "gzip" if to_stdout else compression_of(target)
    taken = take(session.root, session.timeout, redact=not no_redact)
    data = pack(taken.entries, compression, session.timeout)
    if to_stdout:
        _to_stdout(data)
    else:
        write_new(target, data, overwrite=overwrite)
        document = {
            "schema_version": SCHEMA_VERSION,
            "path": target,
            "files": len(taken.entries),
            "bytes": len(data),
            "redacted": taken.redacted,
            "forbidden": taken.forbidden,
            "silent": taken.silent,
        }
        _print(session, output, document)
    _say(taken.redacted, taken.forbidden, taken.silent)


def _refuse_terminal(output: Output) -> None:
    if sys.stdout.isatty():
        raise UsageError("an archive is not for a terminal", hint="-o FILE, or a pipe behind -o -")
    if output.format in ("json", "yaml"):
        raise UsageError("the archive goes to stdout, and so does a document", hint="-o FILE")


def _to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VfioctlError(f"stdout: {error.strerror}", errno=error.errno, code="output") from error


def _print(session: Session, output: Output, document: dict[str, Any]) -> None:
    if output.format in ("json", "yaml"):
        emit(session, output, document)
        return
    for key in ("path", "files", "bytes"):
        sys.stdout.write(f"{key}={visible(text(document[key]))}\n")
    for kind, count in (document["redacted"] or {}).items():
        sys.stdout.write(f"redacted.{kind}={count}\n")
    for key in ("forbidden", "silent"):
        sys.stdout.write(f"{key}={visible(text(document[key]))}\n")


def _say(redacted: dict[str, int] | None, forbidden: list[str], silent: list[str]) -> None:
    if forbidden:
        messages.note(f"{len(forbidden)} files may be read by root only, among them {forbidden[0]}")
    if silent:
        messages.note(
            f"{len(silent)} files did not answer, for the kernel holds a lock: {', '.join(silent[:3])}"
        )
    if redacted is None:
        messages.warn("nothing has been redacted: serial numbers, addresses and names are in it")
    else:
        replaced = ", ".join(f"{count} of {kind}" for kind, count in redacted.items())
        messages.note(f"replaced: {replaced or 'nothing'}; look through it before you publish it")
