"""Makes the manual page man/vfioctl.1: prose from man/vfioctl.1.in, the rest from the command tree and its help.

    python -m vfioctl.cli.manual man             prints the page made from man/vfioctl.1.in
    python -m vfioctl.cli.manual --write man     writes it to man/vfioctl.1
    python -m vfioctl.cli.manual --check man     says whether that is out of step (status 1)

In the template a line ``.\\" @OPTIONS@``, ``.\\" @COMMANDS@``, ``.\\" @EXIT STATUS@``, ``.\\" @GUARDS@`` or
``.\\" @ERRORS@`` stands for the generated part, and ``@VERSION@`` for the version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from vfioctl import __version__
from vfioctl.cli import refusals
from vfioctl.cli.app import vfioctl
from vfioctl.errors import ExitStatus
from vfioctl.policy.guards import ALLOWABLE_GUARDS, GUARDS, Kind

_MADE_BY = '.\\" Made by python -m vfioctl.cli.manual from vfioctl.1.in and the command tree; do not edit.'

MEANINGS = {
    ExitStatus.OK: "Yes, or done. Also when there was nothing to do.",
    ExitStatus.NO: "A clean no: the question was understood, and the answer is negative (not viable, no VFIO member).",
    ExitStatus.USAGE: "Usage: the command line is malformed, or asks for something that cannot be.",
    ExitStatus.NOT_FOUND: "There is no such group, device, user or key, or the device is in no IOMMU group.",
    ExitStatus.PERMISSION: "The caller may not do this.",
    ExitStatus.GUARD: "Refused by a guard, which is named together with its evidence; see GUARDS.",
    ExitStatus.BUSY: "Busy: somebody holds it, or vfioctl's lock, and is named where that can be seen.",
    ExitStatus.KERNEL: "The kernel refused; the message has the errno and what it means here.",
    ExitStatus.RESTORED: "Failed or interrupted, and everything that had been changed was put back and read back.",
    ExitStatus.BROKEN: "Failed, and not everything could be put back: the message says exactly what is left. "
    "Run vfioctl recover.",
    ExitStatus.TIMEOUT: "A deadline passed: the kernel, udev or modprobe did not answer within --timeout (see "
    "DEADLINES), or what was waited for did not come.",
}

_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})


class Epilog(NamedTuple):
    """What stands below a command's options: shell lines, and a sentence on its exit status or None."""

    examples: tuple[str, ...]
    exit_status: str | None


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name (of a family's: two words), in the order of ``vfioctl --help``. Imports them all."""
    yield from _commands_of(vfioctl, "")


def _commands_of(group: click.Group, family: str) -> Iterator[tuple[str, click.Command]]:
    context = _context(group, family or "vfioctl")
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        name = f"{family} {word}".strip()
        if isinstance(command, click.Group):
            yield from _commands_of(command, name)
        else:
            yield name, command


def epilog(command: click.Command) -> Epilog:
    """The epilog of a command, taken apart."""
    blocks: dict[str, list[str]] = {}
    for block in (command.epilog or "").split("\n\n"):
        title, *lines = block.removeprefix("\b\n").splitlines() or [""]
        blocks[title] = [line.removeprefix("  ") for line in lines]
    status = " ".join(line.strip() for line in blocks.get("Exit status:", []))
    return Epilog(tuple(blocks.get("Examples:", [])), status or None)


def page(template: str) -> str:
    """The manual page."""
    parts = {
        "OPTIONS": _options(_context(vfioctl, "vfioctl")),
        "COMMANDS": _commands(),
        "EXIT STATUS": _exit_status(),
        "GUARDS": _guards(),
        "ERRORS": refusals.section(_prose),
    }
    for name, lines in parts.items():
        marker = f'.\\" @{name}@\n'
        if template.count(marker) != 1:
            raise ValueError(f"the template must have the line {marker!r} once")
        template = template.replace(marker, "".join(f"{line}\n" for line in lines))
    return template.replace("@VERSION@", __version__)


def literal(text: str) -> str:
    """``text`` so that it comes out, and can be copied from the page, character by character."""
    text = text.translate(_ESCAPES)
    return f"\\&{text}" if text.startswith(".") else text


def _prose(text: str) -> list[str]:
    """A paragraph, a sentence a line. Every hyphen is a minus sign, and names are not hyphenated: they are copied."""
    sentences = re.split(r"(?<=[.:;!?]) +(?=[A-Z])", " ".join(text.split()))
    return [" ".join(map(_word, sentence.split())) for sentence in sentences]


def _word(word: str) -> str:
    return f"\\%{literal(word)}" if re.search(r"\w[,_/-]\w", word) else literal(word)


def _commands() -> list[str]:
    lines = []
    parent = _context(vfioctl, "vfioctl")
    for name, command in commands():
        context = _context(command, name, parent)
        arguments = " ".join(command.collect_usage_pieces(context)[1:])
        usage = f"[\\fIoptions\\fR] \\fI{literal(arguments)}\\fR" if arguments else "[\\fIoptions\\fR]"
        lines += [f".SS {literal(name)}", f".B vfioctl {literal(name)}", usage]
        for paragraph in (command.help or "").split("\n\n"):
            lines += [".PP", *_prose(paragraph)]
        lines += _options(context, leave_out=["--help"])
        below = epilog(command)
        if below.exit_status:
            lines += [".PP", *_prose(f"Exit status: {below.exit_status}")]
        lines += [".PP", "Examples:", ".PP", ".RS 4", ".EX", *map(literal, below.examples), ".EE", ".RE"]
    return lines


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return command.make_context(name, [], parent, resilient_parsing=True)


def _options(context: click.Context, leave_out: Sequence[str] = ()) -> list[str]:
    lines = []
    for parameter in context.command.get_params(context):
        if not isinstance(parameter, click.Option) or any(name in leave_out for name in parameter.opts):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            names, explanation = record
            lines += [".TP", _names(names), *_prose(explanation)]
    return lines


def _names(names: str) -> str:
    """``-o, --columns A,B`` with the options bold and what stands for their values in italics."""
    words = []
    for word in names.split():
        bare = word.rstrip(",")
        font = "B" if bare.startswith("-") else "R" if bare == "/" else "I"
        words.append(f"\\f{font}{literal(bare)}\\fR{word[len(bare) :]}")
    return " ".join(words)


def _exit_status() -> list[str]:
    lines = []
    for status in ExitStatus:
        lines += [".TP", f".B {int(status)}", *_prose(MEANINGS[status])]
    return lines


def _guards() -> list[str]:
    lines = []
    never = [name for name, guard in GUARDS.items() if guard.kind is Kind.NEVER]
    by_option = [name for name, guard in GUARDS.items() if guard.kind is Kind.OPTION]
    warnings = [name for name, guard in GUARDS.items() if guard.kind is Kind.WARNING]
    for heading, names in (
        (None, ALLOWABLE_GUARDS),
        ("These cannot be passed:", never),
        ("Passed by an option of its own:", by_option),
        ("These warn, and stop nothing:", warnings),
    ):
        lines += [".PP", heading] if heading else []
        for name in names:
            lines += [".TP", f".B {literal(name)}", *_prose(GUARDS[name].description)]
    return lines


def _made(directory: Path) -> str:
    template = (directory / "vfioctl.1.in").read_text(encoding="utf-8")
    return f"{_MADE_BY}\n{page(template)}"


def is_stale(directory: Path) -> bool:
    """Whether the page in ``directory`` is missing or differs from what would be made."""
    made = directory / "vfioctl.1"
    return not made.exists() or made.read_text(encoding="utf-8") != _made(directory)


def main(args: Sequence[str]) -> int:
    """The command line of this module."""
    match args:
        case ["--write", directory]:
            Path(directory, "vfioctl.1").write_text(_made(Path(directory)), encoding="utf-8")
        case ["--check", directory]:
            if is_stale(Path(directory)):
                print("vfioctl.1 is out of step: python -m vfioctl.cli.manual --write man", file=sys.stderr)
                return 1
        case [directory] if not directory.startswith("-"):
            sys.stdout.write(_made(Path(directory)))
        case _:
            print("usage: DIR | --write DIR | --check DIR", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
