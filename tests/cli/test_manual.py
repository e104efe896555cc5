"""The manual and the help texts: in step with the tree, complete, clean roff, and what they show can be typed.

Needs man and groff (Debian: man-db, groff).
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from tests.bench.tree import build
from tests.cli.examples import assert_parses, calls
from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from tests.fakes.tree import describe_port
from vfioctl.cli import manual, refusals
from vfioctl.cli.app import run, vfioctl
from vfioctl.cli.registry import COMMANDS
from vfioctl.errors import ExitStatus, VfioctlError
from vfioctl.host.holders import Holder
from vfioctl.policy.guards import ALLOWABLE_GUARDS
from vfioctl.policy.refusals import ON_SPAPR, TABLE, State, explain, explain_write
from vfioctl.policy.refusals.state import Refusal
from vfioctl.policy.refusals.words import Table, meant

REPOSITORY = Path(__file__).resolve().parents[2]
MAN = REPOSITORY / "man"
PAGE = (MAN / "vfioctl.1").read_text(encoding="utf-8")
#: Options in the prose that belong to other programs.
NOT_OURS = frozenset({"--pid", "--showconfig"})


def plain(text: str) -> str:
    """Roff text without its fonts and escapes."""
    text = re.sub(r"^\.[A-Z]+ ?", "", re.sub(r"\\f[BIRP]", "", text), flags=re.MULTILINE)
    for escape, character in (
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\(dq", '"'),
        ("\\&", ""),
        ("\\%", ""),
        ("\\e", "\\"),
    ):
        text = text.replace(escape, character)
    return text


def section(name: str) -> str:
    """What stands below the heading ``name``."""
    return PAGE.split(f"\n.SH {name}\n", 1)[1].split("\n.SH ", 1)[0]


def examples_in(text: str) -> list[str]:
    """The lines of the example blocks of a roff text that call vfioctl."""
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE\n", text, re.MULTILINE | re.DOTALL)
    return [plain(line) for block in blocks for line in block.splitlines() if line.startswith("vfioctl ")]


def test_page_is_in_step() -> None:
    assert not manual.is_stale(MAN), "run python -m vfioctl.cli.manual --write man"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_two_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    below = shown.partition("Examples:\n")[2].partition("\n\n")[0]
    examples = [line.strip() for line in below.splitlines() if line.strip().startswith("vfioctl ")]
    assert len(examples) >= 2
    assert all(any(f" {name} " in f" {' '.join(call)} " for call in calls(line)) for line in examples)
    found = dict(manual.commands())[name]
    assert manual.epilog(found).examples == tuple(examples), "the manual must show the same examples"
    assert f"\n.SS {manual.literal(name)}\n" in PAGE


@pytest.mark.parametrize("line", examples_in(PAGE))
def test_examples_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_parses(line, monkeypatch)


def test_an_unknown_option_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dict(manual.commands())["bind"], "callback", lambda **values: 0)
    (arguments,) = calls("vfioctl bind 26 --no-such-option | cat")
    assert arguments == ["bind", "26", "--no-such-option"]
    assert run(arguments) == ExitStatus.USAGE


def test_every_option_in_the_page_exists() -> None:
    known = {"--help", "--version"}
    for command in (vfioctl, *(command for _, command in manual.commands())):
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", plain(PAGE)))
    assert mentioned - known - NOT_OURS == set()
    missing = {o for o in known if o.startswith("--")} - mentioned
    assert not missing, "options that the manual does not have"


def test_every_exit_status_is_explained() -> None:
    assert set(manual.MEANINGS) == set(ExitStatus)
    text = section("EXIT STATUS")
    for status in ExitStatus:
        assert f"\n.B {int(status)}\n" in text


def test_every_guard_is_named() -> None:
    """Guards are raised as GuardRefusal(code="..."); those that may be passed are listed in policy.guards."""
    raised: set[str] = set()
    for path in (REPOSITORY / "vfioctl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="GuardRefusal"), keywords=keywords):
                    words = [word.value for word in keywords if word.arg == "code"]
                    raised |= {str(word.value) for word in words if isinstance(word, ast.Constant)}
    passable, _, never = plain(section("GUARDS")).partition("These cannot be passed:")
    assert raised
    assert {name for name in ALLOWABLE_GUARDS if f"\n{name}\n" not in passable} == set()
    assert {name for name in raised - set(ALLOWABLE_GUARDS) if f"\n{name}\n" not in never} == set()


def rendered(text: str) -> str:
    """What ``plain`` makes of a paragraph of the page."""
    return " ".join(text.split())


@pytest.mark.parametrize("table", [TABLE, ON_SPAPR], ids=["any", "spapr"])
def test_errors_of_the_kernel_are_those_that_are_said(table: Table) -> None:
    """Cause and cure in the page are the message and the hint of an error of which nothing is known."""
    text = " ".join(plain(section("ERRORS OF THE KERNEL")).split())
    for (call, number), meanings in table.items():
        assert f" {refusals.name_of(call)} " in f" {text} "
        for meaning in meanings:
            error = meaning.error(Refusal(call, number, State()))
            assert rendered(f"{error.message} [{error.code}]") in text
            assert rendered(f"Cure: {error.hint}") in text
            assert "{" not in f"{error.message}{error.hint}"
        said = explain_of(call, number, table)
        assert rendered(f"Cure: {said.hint}") in text


def explain_of(call: str, number: int, table: Table) -> VfioctlError:
    """The error as the program makes it."""
    if call.startswith("open "):
        nodes = {"container": "/dev/vfio/vfio", "iommufd": "/dev/iommu", "device": "/dev/vfio/devices/vfioN"}
        return explain("open", number, State(), nodes.get(call.removeprefix("open "), "/dev/vfio/GROUP"))
    if call.startswith("write ") and call != "write to sysfs":
        _, file, driver = f"{call} ".split(" ", 2)
        return explain_write(file, "", number, State(driver=driver.strip() or None))
    return meant(table[call, number], Refusal(call, number, State())).error(Refusal(call, number, State()))


def test_every_code_of_the_kernels_errors_has_its_places() -> None:
    text = section("ERRORS OF THE KERNEL").partition("\n.SS Codes\n")[2]
    listed = {plain(line) for line in re.findall(r"^\.B (\S+)$", text, re.MULTILINE)}
    assert listed == {
        meaning.code for table in (TABLE, ON_SPAPR) for each in table.values() for meaning in each
    }
    assert "write to bind EINVAL, ENODEV" in " ".join(plain(text).split())


def shapes(mark: str = "shape") -> list[tuple[list[str], Any]]:
    found = re.findall(
        rf'^\.\\" {mark}: ([^\n]*)\n(.*?)^\.EE\n', section("JSON SHAPES"), re.MULTILINE | re.DOTALL
    )
    assert found
    return [(command.split(), json.loads(plain(text))) for command, text in found]


def test_json_in_the_page_is_json() -> None:
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE\n", section("JSON SHAPES"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 9
    for block in blocks:
        json.loads(plain(re.sub(r'^\.\\".*\n', "", block, flags=re.MULTILINE)))


@pytest.mark.parametrize(("command", "shown"), shapes(), ids=lambda value: str(value)[:20])
def test_shapes_are_what_is_printed(
    command: list[str], shown: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(str(tmp_path), 5)
    subjects = ["0000:01:00.0", "2"] if command[0] == "check-viable" else []
    assert run(["--root", str(tmp_path), *command, *subjects]) in (0, 1)
    printed = json.loads(capsys.readouterr().out)
    assert keys(printed) == keys(shown)


@pytest.mark.parametrize(("command", "shown"), shapes("shape on the fake"), ids=lambda value: str(value)[:20])
def test_shapes_of_changes_are_what_is_printed(command: list[str], shown: Any, tmp_path: Path) -> None:
    kernel = boot(str(tmp_path), SMALL)
    nic, nvme = ROLES["nic_a"], ROLES["nvme"]
    kernel.write(f"/sys/bus/pci/devices/{nvme}/sriov_numvfs", "2")
    machine = FakeMachine(kernel)
    if command[0] == "permit":
        assert run_command(machine, "bind", nic).status == 0
    if command[0] == "holders":
        machine.held["/dev/vfio/12"] = [Holder(1, "qemu", 0, address=nic, node="/dev/vfio/12")]
    if command[0] == "tree":
        describe_port(kernel.tree, ROLES["port_a"])
    printed = run_command(machine, *command)
    assert printed.status in (0, 1), printed.stderr
    assert keys(printed.json) == keys(shown)


def test_further_keys_of_errors_are_explained() -> None:
    """They are given as details={"key": ...} or as a mapping that a function of that name makes."""
    found = {"holders", "evidence"}
    for path in (REPOSITORY / "vfioctl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "details" and isinstance(node.value, ast.Dict):
                found |= {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
    assert found >= {"guards", "kernel", "left", "cause"}
    explained = section("JSON SHAPES").partition("Some errors have more keys:")[2]
    assert {key for key in found if f".TP\n.B {key}\n" not in explained} == set()


def keys(value: Any, path: str = "") -> set[str]:
    """The paths of all keys in a document; lists are looked through."""
    if isinstance(value, dict):
        found = {f"{path}.{key}" for key in value}
        # A node may be null in one of the two.
        return found.union(*(keys(v, f"{path}.{k}") for k, v in value.items() if k not in ("node", "cdev")))
    return set().union(*(keys(item, path) for item in value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    "command",
    [
        ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"],
        ["groff", "-man", "-ww", "-Tutf8", "-z"],
    ],
    ids=["man", "groff"],
)
def test_roff_is_clean(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    checked = subprocess.run(
        [*command, str(MAN / "vfioctl.1")],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stderr == ""


def test_commands_are_those_of_the_registry() -> None:
    assert [name for name, _ in manual.commands()] == list(COMMANDS)
    assert all(isinstance(command, click.Command) for _, command in manual.commands())
