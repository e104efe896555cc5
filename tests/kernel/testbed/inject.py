"""Run vfioctl in a guest under strace: to see its system calls, and to have one of them fail or meet a signal.

strace counts per process and per system call, so a fault without a path hits every process that comes to its count:
those below name calls that only the command itself makes, or a path that only one process touches.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.kernel.testbed.command import DEADLINE, Result, Setting, preloaded_main, start

LOG = Path("/run/testbed/strace.log")
_LINE = re.compile(r"(\d+) +(<\.\.\. )?(\w+)(?:\(| resumed>)(.*)")
_PATH = re.compile(r'[<"](/[^">]*)[">]')
_RESULT = re.compile(r" = (-?\d+)")


class Call(NamedTuple):
    """A system call of process ``pid``. ``path`` is the first one among its arguments, ``result`` what it returned (-1:
    an error; None: it did not return)."""

    pid: int
    name: str
    path: str | None
    result: int | None = None


class Fault(NamedTuple):
    """What happens when ``call`` is entered for the ``when``-th time (strace's ``when=``: "3", "3+"), counting only
    those that touch ``path``: an error instead of the call (``error=EIO``), or a signal (``signal=SIGKILL``: the call
    is not made; others: it is)."""

    call: str
    what: str
    when: str = "1"
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.what} at {self.call} {self.when}" + (f" of {self.path}" if self.path else "")


class Traced(NamedTuple):
    """``met``: the faults that did happen. The processes that the command left behind have ended, too."""

    result: Result
    lines: tuple[str, ...]

    def met(self, fault: Fault) -> bool:
        """Whether the fault happened at all."""
        kind, _, value = fault.what.partition("=")
        mark = "(INJECTED)" if kind == "error" else f"--- {value} "
        if value == "SIGKILL":
            mark = "+++ killed by SIGKILL"
        return any(mark in line for line in self.lines)


def with_faults(arguments: Sequence[object], faults: Sequence[Fault]) -> Traced:
    """Runs ``vfioctl ARGUMENT...`` as root; the faults name different system calls, and the same path or none."""
    return _traced(arguments, {fault.call for fault in faults}, _options(faults))


def calls(
    arguments: Sequence[object], names: Sequence[str], faults: Sequence[Fault] = ()
) -> tuple[Result, list[Call]]:
    """Runs ``vfioctl ARGUMENT...`` as root; the system calls that it and its children made and that are among
    ``names``, its own first one first. The faults, if any, have no path."""
    result, lines = _traced(arguments, set(names), ["-y", *_options(faults)])
    return result, _parsed(lines)


def _options(faults: Sequence[Fault]) -> list[str]:
    options = []
    for fault in faults:
        options += ["-e", f"inject={fault.call}:{fault.what}:when={fault.when}"]
    for path in {fault.path for fault in faults if fault.path}:
        options += ["-P", path]
    return options


def _parsed(lines: Sequence[str]) -> list[Call]:
    found: list[Call] = []
    unfinished: dict[int, int] = {}  # pid to index
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        pid, resumed, name, rest = int(match[1]), match[2], match[3], match[4]
        returned = _RESULT.search(rest)
        result = int(returned[1]) if returned else None
        if resumed:
            index = unfinished.pop(pid)
            found[index] = found[index]._replace(result=result)
            continue
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = len(found)
        path = _PATH.search(rest.replace("AT_FDCWD</>", ""))
        found.append(Call(pid, name, path and path[1], result))
    return found


def _traced(arguments: Sequence[object], names: set[str], options: Sequence[str]) -> Traced:
    main = preloaded_main()
    held, gate = os.pipe()

    def gated(words: list[str]) -> object:
        os.read(held, 1)
        os.close(held)
        return main(words)

    running = start([str(argument) for argument in arguments], Setting(pass_fds=(held,)), gated)
    os.close(held)
    command = ["strace", "-f", "-e", f"trace={','.join(sorted(names))}", *options, "-o", str(LOG)]
    with subprocess.Popen([*command, "-p", str(running.pid)], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = ""
        try:
            while "attached" not in said:
                said = strace.stderr.readline()
                assert said, "strace has not attached"
        finally:
            os.close(gate)  # go
        result = running.wait()
        strace.communicate(timeout=DEADLINE)  # it ends after the last process of the command
    return Traced(result, tuple(LOG.read_text(errors="replace").splitlines()))
