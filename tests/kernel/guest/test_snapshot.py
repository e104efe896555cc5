"""A snapshot taken on a real kernel answers as the machine did, and the list of what goes into one is whole.

With VFIOCTL_TESTS_SNAPSHOTS set the redacted ones are handed to the host, for tests/snapshots.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.cli.looking import answers, command_lines
from tests.fakes.command import run_command
from tests.fakes.reads import missing, noted
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of, modprobe, on_host_driver, unbind
from tests.kernel.guest.test_holders import open_node, process
from tests.kernel.guest.test_host_driver import interface_of, wait_for
from vfioctl.host import vfio
from vfioctl.host.archive import unpack
from vfioctl.host.extent import collect
from vfioctl.host.holders import Found

Roles = Mapping[str, str]
Keep = Callable[[str, object], None]
pytestmark = pytest.mark.deadline(500)

#: What is not the host's (the test's own files), what a snapshot has recorded in another way (processes), or does not
#: know of (open containers, which are processes), and a link among those of an NVMe subsystem that leads to no
#: controller.
NOT_FILES = re.compile(
    r"proc/(self|\d+)(/.*)?|dev/null|run/(testbed|tmp|vfioctl/containers).*|sys/devices/virtual/nvme-subsystem/[^/]+/subsystem"
)
PLACES = ("sys/", "proc/", "run/", "dev/", "boot/", "lib/modules/", "etc/modprobe.d/", "etc/driverctl.d/")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that every user may write to."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o1777)
        yield Path(path)


def ask(lines: Sequence[tuple[str, ...]], root: Path | None = None, **setting: Any) -> dict[str, list[Any]]:
    """The answers, all by one process."""
    where = () if root is None else ("--root", root)

    def main(_: list[str]) -> None:
        print(json.dumps(answers(lambda *line: run_command(None, *where, *line), lines)))

    result = Vfioctl(main)(deadline=200, **setting)
    assert result.status == 0, result.stderr
    found: dict[str, list[Any]] = result.json
    return found


def compare(
    vfioctl: Vfioctl, scratch: Path, subjects: tuple[str, ...], keep: Keep, machine: str, **setting: Any
) -> Any:
    """Takes a snapshot, and looks at the machine and at what was in the archive; the answer of snapshot."""
    lines = [*command_lines(subjects, more=False), ("list-devices", "--names", "-J")]
    if setting:  # what one user may read that another may not
        names = ("list-groups", "impact", "holders", "doctor")
        lines = [line for line in lines if line[0] in names]
    before = ask(lines, **setting)
    name = "user" if setting else "root"
    whole, public = scratch / f"{name}.tar.gz", scratch / f"{name}-public.tar.gz"
    taken = vfioctl("snapshot", "--no-redact", "-o", whole, "-J", **setting)
    assert taken.status == 0, taken.stderr
    directory = scratch / name
    directory.mkdir()
    unpack(str(whole), str(directory), 60)
    after = ask(lines, directory)
    # Where VFIO does not answer, iommu-info fails on the machine, and of a snapshot it says what is known without.
    compared = [line for line in before if not (line.startswith("iommu-info") and before[line][0] == 7)]
    differing = {line: (before[line], after[line]) for line in compared if before[line] != after[line]}
    assert differing == {}
    assert {before[line][0] for line in compared} <= {0, 1, 2, 3}

    # Without secrets: the same bytes of what has none, and the same findings.
    assert vfioctl("snapshot", "-o", public, **setting).status == 0
    plain = [line for line in lines if line[0] in ("list-groups", "list-devices", "tree", "check-viable")]
    redacted = ask([*plain, ("impact", *subjects, "-J")], public)
    assert {line: redacted[line] for line in map(" ".join, plain)} == {
        line: before[line] for line in map(" ".join, plain)
    }
    (live,) = ask([("impact", *subjects, "-J")], **setting).values()
    (_, *_, replayed) = redacted.values()
    assert (live[0], findings(live[1])) == (replayed[0], findings(replayed[1]))
    if not setting and os.environ.get("VFIOCTL_TESTS_SNAPSHOTS"):
        keep(f"snapshot {machine} {','.join(subjects)}", base64.b64encode(public.read_bytes()).decode())
    return taken.json


def findings(document: str) -> list[tuple[str, str, str]]:
    return [
        (result["address"], use["guard"], use["level"])
        for result in json.loads(document)["results"]
        for use in result["impacts"]
    ]


def not_taken(subjects: tuple[str, ...]) -> list[str]:
    """What the looking commands ask the kernel for, is there, and is in no snapshot."""

    def main(_: list[str]) -> None:
        with noted() as reads, mock.patch("vfioctl.host.usage.find_holders", lambda *_: Found()):
            for line in command_lines(subjects, more=False):
                if line[0] != "holders":
                    run_command(None, *line)
        found = missing(reads, "/", collect("/", 60))
        print(json.dumps(sorted(p for p in found if p.startswith(PLACES) and not NOT_FILES.fullmatch(p))))

    result = Vfioctl(main)(deadline=200)
    assert result.status == 0, result.stderr
    listed: list[str] = result.json
    return listed


@pytest.mark.kernels("7.2")  # on 6.1 it has passed too; it takes minutes on a machine that is busy
def test_a_host_in_use(
    vfioctl: Vfioctl, roles: Roles, scratch: Path, machine: str, record_property: Keep
) -> None:
    """A device with VFIO that is held, a disk that is mounted, one that is opened, a network card with an address."""
    edu, nic, nvme = roles["edu"], roles["nic_a"], roles["nvme"]
    modprobe("vfio_iommu_type1")
    on_host_driver(nic, "e1000e")
    on_host_driver(nvme, "nvme")
    name, disk = interface_of(nic), wait_for(Path("/dev/nvme0n1"))
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    assert vfioctl("bind", edu, "--user", 65534, "--mode", "640").status == 0
    try:
        node = vfio.group_path(group_of(edu))
        with process(open_node(node)), process(lambda: os.open(disk, os.O_RDONLY)):
            taken = compare(vfioctl, scratch, (edu, "nvme0n1"), record_property, machine)
            assert (taken["silent"], taken["redacted"]) == ([], None)
            assert taken["bytes"] < 200_000
            compare(vfioctl, scratch, (nic,), record_property, machine, user=vfioctl.unprivileged)
        assert not_taken((nic,)) == []
    finally:
        subprocess.run(["ip", "link", "set", name, "down"], check=True)
        assert vfioctl("unbind", edu).status == 0
        for address in (nic, nvme):
            unbind(address)


@pytest.mark.machine("smmuv3")
def test_on_arm64(vfioctl: Vfioctl, roles: Roles, scratch: Path, machine: str, record_property: Keep) -> None:
    compare(vfioctl, scratch, (roles["nic_a"],), record_property, machine)


@pytest.mark.machine("pseries")
def test_on_power(vfioctl: Vfioctl, roles: Roles, scratch: Path, machine: str, record_property: Keep) -> None:
    compare(vfioctl, scratch, (roles["nic_a"],), record_property, machine)


@pytest.mark.machine("zpci")
def test_on_s390x(vfioctl: Vfioctl, roles: Roles, scratch: Path, machine: str, record_property: Keep) -> None:
    compare(vfioctl, scratch, (roles["nic_a"],), record_property, machine)
