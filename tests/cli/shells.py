"""Real interactive shells on a pseudo-terminal: type a line, press keys, read the edited line back."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMPLETIONS = REPOSITORY / "completions"
TAB, ALL, SHOW = "\t", "\x1b*", "\x07"  # complete; insert all candidates (bash); write the line down
_DEADLINE = 60.0

_BASHRC = f"""
PS1='> '
source '{COMPLETIONS}/vfioctl.bash'
written_down() {{ printf '%s' "$READLINE_LINE" >"$LINE.new"; mv "$LINE.new" "$LINE"; }}
bind 'set bell-style none'
bind -x '"\\C-g": written_down'
: >"$READY"
"""

_ZSHRC = f"""
PS1='> '
fpath=('{COMPLETIONS}' $fpath)
autoload -Uz compinit
compinit -u -D
written_down() {{ print -rn -- "$BUFFER" >"$LINE.new"; mv "$LINE.new" "$LINE" }}
zle -N written_down
bindkey -e
bindkey '^G' written_down
: >"$READY"
"""


def environment(scratch: Path) -> dict[str, str]:
    """An environment whose PATH has a ``vfioctl`` that runs this tree."""
    programs = scratch / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "vfioctl"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m vfioctl \"$@\"\n")
    program.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(scratch),
        "ZDOTDIR": str(scratch),
        "XDG_CONFIG_HOME": str(scratch),
        "XDG_DATA_HOME": str(scratch),
        "INPUTRC": "/dev/null",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "LINE": str(scratch / "line"),
        "READY": str(scratch / "ready"),
    }


def bash(scratch: Path, line: str, keys: str = TAB) -> str:
    """The command line of an interactive bash after ``line`` and ``keys`` were typed."""
    (scratch / "bashrc").write_text(_BASHRC)
    return _type(["bash", "--noprofile", "--rcfile", str(scratch / "bashrc"), "-i"], scratch, line + keys)


def zsh(scratch: Path, line: str, keys: str = TAB) -> str:
    """The same with zsh."""
    (scratch / ".zshrc").write_text(_ZSHRC)
    return _type(["zsh", "-d", "-i"], scratch, line + keys)


def fish(scratch: Path, line: str) -> list[str]:
    """The candidates that fish offers for ``line``, without descriptions."""
    answer = subprocess.run(
        [
            *("fish", "--no-config", "-c", "source $argv[1]; complete --do-complete $argv[2]"),
            *(str(COMPLETIONS / "vfioctl.fish"), line),
        ],
        env=environment(scratch),
        cwd=scratch,
        check=True,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
    )
    return [candidate.partition("\t")[0] for candidate in answer.stdout.splitlines()]


def _type(command: list[str], scratch: Path, keys: str) -> str:
    variables = environment(scratch)
    written, ready = Path(variables["LINE"]), Path(variables["READY"])
    for old in (written, ready):
        old.unlink(missing_ok=True)
    terminal, inside = pty.openpty()
    shell = subprocess.Popen(
        command,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        env=variables,
        cwd=scratch,
        start_new_session=True,
    )
    os.close(inside)
    os.set_blocking(terminal, False)
    shown = bytearray()
    try:
        _wait(ready, terminal, shown)
        os.write(terminal, keys.encode() + SHOW.encode())
        _wait(written, terminal, shown)
        return written.read_text()
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def _wait(file: Path, terminal: int, shown: bytearray) -> None:
    """Until the shell has made ``file``; what it prints meanwhile must be read, lest it stop."""
    end = time.monotonic() + _DEADLINE
    while not file.exists():
        assert time.monotonic() < end, f"the shell did not get there; it showed: {bytes(shown)!r}"
        try:
            shown += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
