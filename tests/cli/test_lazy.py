"""What is imported when: start-up is a feature."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.topology import boot

#: Slow to import, and of no use to a command that prints JSON or completes a word.
HEAVY = {"rich", "yaml", "pyudev", "ctypes", "subprocess", "difflib", "tempfile", "socket", "logging", "fcntl",
         "multiprocessing", "importlib.metadata", "shutil"}  # fmt: skip

_PROGRAM = """
import json, os, sys
before = set(sys.modules)
from vfioctl.__main__ import main
with open(os.devnull, "w") as sys.stdout:
    try:
        status = main(json.loads(sys.argv[1]))
    except SystemExit as end:
        status = end.code
sys.stdout = sys.__stdout__
print(json.dumps([status, sorted(set(sys.modules) - before)]))
"""


def modules_of(*arguments: str, **environment: str) -> tuple[int, set[str]]:
    """Exit status and the modules that a command imports."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(_REPOSITORY)!r}){_PROGRAM}",
            json.dumps(arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    status, found = json.loads(done.stdout.splitlines()[-1])
    return status, set(found)


_REPOSITORY = Path(__file__).resolve().parents[2]


def commands(found: set[str]) -> set[str]:
    return {name for name in found if name.startswith("vfioctl.cli.commands.")}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()])
def test_help_imports_no_command(arguments: tuple[str, ...]) -> None:
    status, found = modules_of(*arguments)
    assert status == (0 if arguments else 2)
    assert commands(found) == set()
    assert not found & {"rich", "yaml", "pyudev", "vfioctl.host.reader", "vfioctl.ops.change"}


def test_completing_a_command_imports_none() -> None:
    _, found = modules_of(_VFIOCTL_COMPLETE="bash_complete", COMP_WORDS="vfioctl li", COMP_CWORD="1")
    assert commands(found) == set()
    assert not found & {"rich", "yaml", "pyudev"}


def test_a_command_imports_only_itself() -> None:
    _, found = modules_of("bind", "--help")
    assert commands(found) == {"vfioctl.cli.commands.bind"}


def test_the_fast_path(tmp_path: Path) -> None:
    boot(str(tmp_path))
    status, found = modules_of("--root", str(tmp_path), "list-groups", "-J")
    assert status == 0
    assert commands(found) == {"vfioctl.cli.commands.list_groups"}
    assert not found & HEAVY
    ours = {name for name in found if name.startswith("vfioctl.")}
    assert ours == {
        "vfioctl.__main__",
        "vfioctl.cli",
        "vfioctl.cli.app",
        "vfioctl.cli.arguments",
        "vfioctl.cli.commands",
        "vfioctl.cli.commands.list_groups",
        "vfioctl.cli.messages",
        "vfioctl.cli.output",
        "vfioctl.cli.records",
        "vfioctl.cli.registry",
        "vfioctl.cli.session",
        "vfioctl.errors",
        "vfioctl.host",
        "vfioctl.host.bounded",
        "vfioctl.host.files",
        "vfioctl.host.locked",
        "vfioctl.host.reader",
        "vfioctl.host.survey",
        "vfioctl.model",
        "vfioctl.policy",
        "vfioctl.policy.viability",
    }


def test_plain_output_needs_no_rich(tmp_path: Path) -> None:
    boot(str(tmp_path))
    _, found = modules_of("--root", str(tmp_path), "list-devices", "--format", "plain")
    assert not found & {"rich", "yaml", "pyudev", "json"}
