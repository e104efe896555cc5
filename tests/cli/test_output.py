"""Formats: what a script may rely on, and no escape ever to a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.command import run_command
from tests.fakes.topology import ROLES, boot
from vfioctl.cli.output import emit_yaml, text
from vfioctl.errors import visible

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES_SHOWN = ("edu", "port_a", "nic_a")
HEADINGS = "GROUP TYPE VIABLE MEMBERS DRIVERS NODE OWNER MODE"
LINES = [
    "2 DMA yes 1 - - - -",
    "5 DMA yes 1 pcieport - - -",
    "12 DMA no 1 e1000e - - -",
]


@pytest.fixture
def root(tmp_path: Path) -> str:
    boot(str(tmp_path), ROLES_SHOWN)
    return str(tmp_path)


def out(root: str, *arguments: str) -> str:
    result = run_command(None, "--root", root, *arguments)
    assert result.status == 0, result.stderr
    return result.stdout


def test_plain_is_for_a_pipe(root: str) -> None:
    assert out(root, "list-groups").splitlines() == [HEADINGS, *LINES]
    assert out(root, "list-groups", "-n").splitlines() == LINES
    assert out(root, "list-groups", "-n", "-o", "group,VIABLE").splitlines() == ["2 yes", "5 yes", "12 no"]
    assert "\t" not in out(root, "list-groups")


def test_a_row_per_member(root: str) -> None:
    lines = out(root, "list-groups", "--devices", "-n", "-o", "group,address,driver").splitlines()
    assert lines == [f"2 {ROLES['edu']} -", f"5 {ROLES['port_a']} pcieport", f"12 {ROLES['nic_a']} e1000e"]


def test_json_and_yaml_say_the_same(root: str) -> None:
    for command in ("list-groups", "list-devices"):
        document = json.loads(out(root, command, "-J"))
        assert document["schema_version"] == 1
        assert yaml.safe_load(out(root, command, "--format", "yaml")) == document
        assert json.loads(out(root, command, "--format", "json")) == document
        assert out(root, command, "-J").count("\n") == 1


def test_a_table_has_all_the_words(root: str) -> None:
    lines = [line.split() for line in out(root, "list-groups", "--format", "table").splitlines()]
    assert lines == [line.split() for line in (HEADINGS, *LINES)]
    without = out(root, "list-groups", "--format", "table", "-n").splitlines()
    assert [line.split() for line in without] == [line.split() for line in LINES]


@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_no_escapes_to_a_pipe(root: str, form: str) -> None:
    assert "\x1b" not in out(root, "list-groups", "--format", form)


def on_terminal(*arguments: str) -> str:
    """What a command prints to a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "vfioctl", *arguments], stdout=slave, stderr=slave, stdin=slave, cwd=REPOSITORY
    ) as process:
        os.close(slave)
        found = b""
        with contextlib.suppress(OSError):  # EIO: the last one has closed it
            while data := os.read(master, 4096):
                found += data
    os.close(master)
    assert process.returncode == 0, found
    return found.decode()


def test_colour_is_for_a_terminal(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    command = ("--root", root, "list-groups")
    green = "\x1b[32m"
    assert green in on_terminal(*command)
    assert green not in on_terminal("--color", "never", *command)
    always = run_command(None, "--color", "always", *command, "--format", "table").stdout
    assert green in always
    monkeypatch.setenv("NO_COLOR", "1")
    assert green not in on_terminal(*command)
    assert green in on_terminal("--color", "always", *command)


@given(st.text())
def test_visible_is_visible(word: str) -> None:
    shown = visible(word)
    assert shown.isprintable()
    if word.isprintable():
        assert shown == word


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        ([], "-"),
        (["a", None], "a,-"),
        ((1, 2), "1,2"),
    ],
)
def test_words_for_values(cell: Any, shown: str) -> None:
    assert text(cell) == shown


def test_a_field_is_one_word(root: str, tmp_path: Path) -> None:
    kernel_tree = Path(root) / "sys/kernel/iommu_groups/2/name"
    kernel_tree.write_bytes(b"two words\x1b[0m\n")
    line = out(root, "list-groups", "2", "-n", "-o", "group,name,viable").rstrip("\n")
    assert re.fullmatch(r"\S+ \S+ \S+", line)
    assert line == "2 two\\x20words\\x1b[0m yes"


def test_ids_are_strings_to_every_reader_of_yaml(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    """11e8 without quotes is a number to YAML 1.2."""
    assert 'device: "11e8"' in out(root, "list-devices", ROLES["edu"], "--format", "yaml")
    emit_yaml({"device": "15e2", "class": "020000", "driver": "e1000e"})
    assert capsys.readouterr().out == 'device: "15e2"\nclass: "020000"\ndriver: e1000e\n'
