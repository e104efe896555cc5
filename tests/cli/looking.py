"""Every looking command, in the forms that are compared between a host and its snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from vfioctl.cli.registry import COMMANDS, LOOK

#: Those that take a snapshot, or wait for something to happen.
OTHERS = {"snapshot", "watch", "wait"}
#: Where the name alone, and the name with a subject, is not all that there is.
MORE: dict[str, tuple[tuple[str, ...], ...]] = {
    "list-groups": (("--devices", "--format", "plain"),),
    "list-devices": (("--names", "-J"), ("--format", "plain")),
    "show": (("{}", "--names", "-J"),),
    "check-viable": (("{}", "--format", "plain"), ("{}", "-q", "--usable")),
    "impact": (("{}", "--group", "-J"), ("{}", "--format", "plain")),
}


class Answer(Protocol):
    """What a command left."""

    @property
    def status(self) -> int: ...

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...


def command_lines(subjects: Iterable[str], *, more: bool = True) -> Iterator[tuple[str, ...]]:
    """The command lines, those that name something once for each subject (a group, a device); without ``more`` the
    documents only."""
    names = [name for name, entry in COMMANDS.items() if entry.section == LOOK and name not in OTHERS]
    for name in (*names, "iommu-info"):
        yield (name, "-J")
        for form in (("{}", "-J"), *(MORE.get(name, ()) if more else ())):
            for subject in subjects if "{}" in form else ("",):
                yield (name, *(word.format(subject) for word in form))


def answers(run: Callable[..., Answer], lines: Iterable[Sequence[str]]) -> dict[str, tuple[int, str]]:
    """The exit status and what goes to stdout, by command line."""
    found = {}
    for line in lines:
        answer = run(*line)
        found[" ".join(line)] = (answer.status, answer.stdout)
    return found
