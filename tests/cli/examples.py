"""Lines of shell in the documentation, and the calls of vfioctl in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from vfioctl.cli import manual
from vfioctl.cli.app import run, vfioctl

SHELL_OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "(", ")"})
SHELL_WORDS = {"if", "then", "while", "do", "!"}


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of vfioctl in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SHELL_OPERATORS:
            if words or word not in SHELL_WORDS:
                words.append(word)
            continue
        if words[:1] == ["vfioctl"]:
            yield words[1:]
        words = []


def assert_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call in the line is understood by the real parser, with the commands' work taken out."""
    monkeypatch.setattr(vfioctl, "callback", lambda **values: None)  # what --root names need not be there
    for _, command in manual.commands():
        monkeypatch.setattr(command, "callback", lambda **values: 0)
    found = list(calls(line))
    assert found
    for arguments in found:
        assert run(arguments) == 0, arguments
