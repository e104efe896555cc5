"""What the README shows works: its first line installs and runs, its examples are understood."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.examples import assert_parses
from tests.fakes.command import run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from vfioctl.errors import ExitStatus
from vfioctl.host.holders import Holder

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SCRIPT, DRIVER = (block for block in BLOCKS if block.startswith("#!"))
LINES = [
    line
    for block in BLOCKS[2:]
    if block not in (SCRIPT, DRIVER)
    for line in block.splitlines()
    if line.strip()
]
NIC, NVME = ROLES["nic_a"], ROLES["nvme"]

#: Stands in for vfioctl: asks the test to run the command line on the imitated host.
ASKS = """\
import json, socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect({path!r})
    asking.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    status, out, err = json.load(asking.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


def test_the_driver_is_the_one_that_is_run() -> None:
    """On real kernels: tests/kernel/guest/test_demo.py."""
    assert (REPOSITORY / "tests/kernel/dma.sh").read_text(encoding="utf-8") == DRIVER


def test_the_first_line_installs_and_lists_groups(tmp_path: Path) -> None:
    """On a copy of the tree, into a directory of its own instead of /opt and /usr/local, and without sudo."""
    line = BLOCKS[0].strip()
    assert line.startswith("sudo sh -c '") and line.endswith("&& vfioctl list-groups")
    here = (
        line.removeprefix("sudo ")
        .replace("/opt/", f"{tmp_path}/opt/")
        .replace("/usr/local/bin", f"{tmp_path}/bin")
    )
    tree = tmp_path / "tree"
    (tmp_path / "bin").mkdir()
    shutil.copytree(
        REPOSITORY, tree, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info", ".*_cache")
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    environment["PATH"] = f"{tmp_path}/bin:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-c", here],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("GROUP ") or "no IOMMU groups" in done.stderr
    assert (tmp_path / "bin" / "vfioctl").exists()


@pytest.mark.parametrize("line", LINES, ids=str.strip)
def test_examples_are_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_parses(line.partition("  #")[0], monkeypatch)


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return boot(str(tmp_path / "host"), SMALL)


def lend(
    kernel: FakeKernel,
    directory: Path,
    *arguments: str,
    prepare: Callable[[FakeMachine, str], object] = lambda machine, command: None,
) -> tuple[int, str, list[str]]:
    """Runs the script on the imitated host: its status, what it said, and the commands of vfioctl that it called, for
    each of which the machine can be prepared."""
    programs, path = directory / "bin", str(directory / "socket")
    programs.mkdir()
    for name, text in {
        "lend": SCRIPT,
        "vfioctl": f"#!{sys.executable}\n" + ASKS.format(path=path),
        "runuser": '#!/bin/sh\nshift 3\nexec "$@"\n',
    }.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    called: list[str] = []
    with socket.socket(socket.AF_UNIX) as asked, open(directory / "said", "w+", encoding="utf-8") as said:
        asked.bind(path)
        asked.listen()
        asked.settimeout(0.05)
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        script = subprocess.Popen([programs / "lend", *arguments], env=environment, stdout=said, stderr=said)
        until = time.monotonic() + 60
        while script.poll() is None:
            assert time.monotonic() < until, called
            try:
                asking, _ = asked.accept()
            except TimeoutError:
                continue
            with asking:
                words = json.loads(asking.makefile().readline())
                called.append(words[0])
                machine = FakeMachine(kernel)
                prepare(machine, words[0])
                done = run_command(machine, *words)
                asking.sendall(json.dumps([done.status, done.stdout, done.stderr]).encode())
        said.seek(0)
        return script.returncode, said.read(), called


def test_the_script_lends_and_gives_back(kernel: FakeKernel, tmp_path: Path) -> None:
    status, said, called = lend(kernel, tmp_path, NIC, "nobody", "sh", "-c", "exit 7")
    assert status == 7, said
    assert called == ["show", "impact", "bind", "permit", "unbind"]
    assert (kernel.devices[NIC].driver, kernel.devices[NIC].override) == ("e1000e", None)
    assert len(kernel.writes) > 4


def test_the_script_stops_where_it_should(kernel: FakeKernel, tmp_path: Path) -> None:
    def ran(name: str, *arguments: str, **how: Callable[[FakeMachine, str], object]) -> tuple[int, str, str]:
        (tmp_path / name).mkdir()
        status, said, called = lend(kernel, tmp_path / name, *arguments, "nobody", "true", **how)
        return status, called[-1], said

    def failing(machine: FakeMachine, command: str) -> None:
        if command == "bind":
            machine.fail_at(4, errno.EIO)

    def hanging(machine: FakeMachine, command: str) -> None:
        if command == "bind":
            machine.hang_at(4)

    def held(machine: FakeMachine, command: str) -> None:
        if command in ("unbind", "holders"):
            node = f"/dev/vfio/{kernel.devices[NIC].group}"
            machine.held[node] = [Holder(4711, "qemu", 107, address=NIC, node=node)]

    assert ran("absent", "0000:99:00.0")[:2] == (3, "show")
    kernel.write(f"/sys/bus/pci/devices/{NVME}/sriov_numvfs", "2")
    kernel.writes.clear()
    status, last, said = ran("used", NVME)
    assert (status, last) == (1, "impact") and "virtual-functions" in said
    assert kernel.writes == []
    assert ran("fails", NIC, prepare=failing)[:2] == (1, "bind")
    assert (kernel.devices[NIC].driver, kernel.devices[NIC].override) == ("e1000e", None)
    status, last, said = ran("held", NIC, prepare=held)
    assert (status, last) == (9, "holders") and "4711" in said
    assert run_command(FakeMachine(kernel), "unbind", NIC).status == 0
    status, last, said = ran("hangs", NIC, prepare=hanging)
    assert (status, last) == (9, "bind") and said.endswith("then: vfioctl recover\n")
    assert run_command(FakeMachine(kernel), "recover").status == 0


def test_the_two_commands_are_there() -> None:
    for name in ("tests/demo", "tests/run"):
        assert name in BLOCKS[1]
        assert os.access(REPOSITORY / name, os.X_OK)


def test_every_exit_status_is_in_the_table() -> None:
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed == {int(status) for status in ExitStatus}
