"""map -c, unmap and memory by the command line, on a fake VFIO."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.machine import FakeMachine
from tests.ops.keeper.conftest import groups
from vfioctl.cli.commands.memory.read import hexdump

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def work(machine: FakeMachine) -> Iterator[FakeMachine]:
    assert run_command(machine, "container", "open", "work", groups(machine)[0]).status == 0
    yield machine
    assert run_command(machine, "container", "close", "work").status == 0


def done(machine: FakeMachine, *arguments: object) -> Any:
    result = run_command(machine, *arguments, "-J")
    assert result.status == 0, result.stderr
    return result.json


def refused(machine: FakeMachine, *arguments: object) -> tuple[int, str, str]:
    result = run_command(machine, *arguments, "-J")
    assert result.stdout == ""
    return result.status, result.json_error["code"], result.json_error["message"]


def shape(value: Any) -> Any:
    """Keys and types, of the first element of a list."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return None


def documented(command: str) -> Any:
    """The shape in the manual that has the keys of ``command``'s answer."""
    text = (REPOSITORY / "man/vfioctl.1.in").read_text().replace("\\-", "-")
    before, found = re.search(rf"\.BR? \"?{command}\"? :(.*?)\.EX\n(.*?)\.EE", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert ".SH" not in before
    return json.loads(found)


def test_the_answers_are_what_the_manual_says(work: FakeMachine, tmp_path: Path) -> None:
    made = done(work, "map", "-c", "work", "--size", "1M", "--chunk", "4K")
    assert shape(made) == shape(documented("map"))
    assert made["mappings"] == [{"iova": 0, "size": MIB, "prot": "rw", "source": "anonymous", "chunk": PAGE}]
    listed = done(work, "memory", "list", "-c", "work")
    assert shape(listed) == shape(documented("memory list"))
    (tmp_path / "list").write_text("- 4K\n0xfee00000 4K\n")
    plan = run_command(work, "map", "-c", "work", "--list", tmp_path / "list", "--plan", "-J")
    assert plan.status == 1
    known = documented(r"map --plan")
    assert {**shape(plan.json), "reserved_regions": 0} == {**shape(known), "reserved_regions": 0}
    unmapped = done(work, "unmap", "-c", "work", "--all")
    assert shape(unmapped) == shape(documented("unmap"))
    assert (unmapped["unmapped"], unmapped["changed"]) == (MIB, True)


def test_bytes_go_in_and_come_out(work: FakeMachine, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB + 5)
    (tmp_path / "data").write_bytes(data)
    (made,) = done(work, "map", "-c", "work", "--fill", tmp_path / "data", "--chunk", "64K")["mappings"]
    assert made["size"] == 3 * MIB + PAGE
    out = tmp_path / "out"
    read = ("memory", "read", "-c", "work", "--output", out)
    assert run_command(work, *read, "--iova", "0", "--size", len(data)).status == 0
    assert out.read_bytes() == data
    (tmp_path / "few").write_bytes(b"few")
    assert (
        run_command(
            work, "memory", "write", "-c", "work", "--iova", "ffff", "--input", tmp_path / "few"
        ).status
        == 0
    )
    assert run_command(work, *read, "--iova", "0xffff", "--size", "3").status == 0
    assert out.read_bytes() == b"few"
    assert run_command(work, *read, "--iova", "0xffff", "--size", "3", "--hex").status == 0
    assert out.read_bytes() == b"0000ffff  66 65 77                                          |few|\n"


def test_a_filling_that_fails_leaves_nothing(work: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(PAGE + 1))
    arguments = ("map", "-c", "work", "--size", "4K", "--fill")
    assert refused(work, *arguments, tmp_path / "data")[0] == 2
    assert refused(work, *arguments, tmp_path / "none")[:2] == (2, "file")
    assert refused(work, *arguments, tmp_path)[:2] == (2, "file")
    assert done(work, "memory", "list", "-c", "work")["mappings"] == []


def test_files(work: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"proof")
    os.mkfifo(tmp_path / "pipe")
    (made,) = done(work, "map", "-c", "work", "--file", tmp_path / "file", "--prot", "r")["mappings"]
    assert made == {"iova": 0, "size": PAGE, "prot": "r", "source": "file", "chunk": None}
    words = ("map", "-c", "work", "--size", "4K", "--prot", "r", "--file")
    assert refused(work, *words, tmp_path / "pipe")[:2] == (2, "file-not-mappable")
    assert refused(work, *words, tmp_path / "file", "--file-offset", "4K")[:2] == (2, "file-too-short")
    assert refused(work, *words, tmp_path / "none")[:2] == (2, "file")


def test_of_a_sparse_file_what_is_mapped_gets_memory(work: FakeMachine, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(256 * MIB)
        (tmp_path / "list").write_text(f"- 4K rw file 0\n- 8K rw file 4K\n- 4K rw file {255 * MIB}\n")
        done(work, "map", "-c", "work", "--list", tmp_path / "list", "--file", file.name)
        assert os.stat(file.name).st_blocks * 512 == 4 * PAGE


def test_a_plan_in_words(work: FakeMachine, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("0 8K\n0x1000 4K\n0xfee00000 4K rw memfd\n- 4K rw hugepages-1T\n")
    arguments = ("map", "-c", "work", "--list", tmp_path / "list", "--plan")
    words = run_command(work, *arguments)
    assert words.status == 1
    assert words.stdout.startswith("possible=no\nmapping=0x0 size=8192 prot=rw source=anonymous line=1\n")
    assert "\nproblem=mapping-overlap: line 2: " in words.stdout
    assert "\nproblem=no-such-huge-pages: " in words.stdout
    assert "\nentries.needed=4\n" in words.stdout
    advised = run_command(work, "map", "-c", "work", "--plan", "--user", "root")
    assert "\nmemlock.advice=in a systemd unit: 'LimitMEMLOCK=1048576' (or infinity)" in advised.stdout
    assert refused(work, "map", "-c", "work", "--plan", "--user", "no-such-user")[0] == 3
    assert done(work, "memory", "list", "-c", "work")["mappings"] == []


def test_what_is_charged_is_told(work: FakeMachine) -> None:
    done(work, "map", "-c", "work", "--size", "2M", "--chunk", "1M")
    listed = run_command(work, "memory", "list", "-c", "work")
    assert listed.stdout == "IOVA SIZE PROT SOURCE ENTRIES\n0x0 2097152 rw anonymous 2\n"
    assert "0 locked, 0 pinned; limit unlimited" in listed.stderr
    assert "mappings 2" not in listed.stdout
    assert run_command(work, "container", "list", "-n", "-o", "mappings,mapped").stdout == "2 2097152\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("map",),
        ("map", "26", "-c", "work"),
        ("map", "26", "--fill", "-"),
        ("map", "-c", "work", "--backend", "type1"),
        ("map", "-c", "work", "--source", "file"),
        ("map", "-c", "work", "--source", "disk"),
        ("map", "-c", "work", "--file", "/etc/passwd", "--source", "memfd"),
        ("map", "-c", "work", "--file-offset", "4K"),
        ("map", "-c", "work", "--list", "-", "--size", "4K"),
        ("map", "-c", "work", "--list", "/dev/zero"),
        ("map", "-c", "work", "--user", "root"),
        ("map", "-c", "work", "--plan", "--fill", "-"),
        ("unmap", "-c", "work"),
        ("unmap", "-c", "work", "--all", "--iova", "0"),
        ("unmap", "-c", "work", "--size", "4K"),
        ("unmap", "--all"),
        ("memory", "read", "-c", "work", "--iova", "0"),
    ],
)
def test_usage(machine: FakeMachine, arguments: tuple[str, ...]) -> None:
    result: Result = run_command(machine, *arguments)
    assert (result.status, result.stdout) == (2, "")


def test_a_dump() -> None:
    assert hexdump(0x1000, bytes(range(60, 80))).decode().splitlines() == [
        "00001000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  |<=>?@ABCDEFGHIJK|",
        "00001010  4c 4d 4e 4f                                       |LMNO|",
    ]
