"""A snapshot taken on a real kernel answers as the machine did; and the list of what goes into one is whole."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.looking import answers, command_lines
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import modprobe, probe, unbind
from tests.kernel.guest.test_holders import open_node, process
from tests.kernel.guest.test_host_driver import interface_of, wait_for
from vfioctl.host import vfio
from vfioctl.host.archive import unpack

Roles = Mapping[str, str]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


def compare(vfioctl: Vfioctl, scratch: Path, subjects: tuple[str, ...], **setting: Any) -> Any:
    """Takes a snapshot and looks at the machine, at the archive and at what was in it; the answer of snapshot."""
    target = scratch / f"{len(list(scratch.iterdir()))}.tar.gz"
    lines = list(command_lines(subjects))
    before = answers(lambda *line: vfioctl(*line, **setting), lines)
    taken = vfioctl("snapshot", "--no-redact", "-o", target, "-J", **setting)
    assert taken.status == 0, taken.stderr
    directory = scratch / f"{target.name}.d"
    directory.mkdir(mode=0o755)
    unpack(str(target), str(directory), 60)
    for path in directory.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    after = answers(lambda *line: vfioctl("--root", directory, *line, **setting), lines)
    differing = {line: (before[line], after[line]) for line in before if before[line] != after[line]}
    assert differing == {}
    for line in (("list-groups", "-J"), ("list-devices", "-J")):
        assert vfioctl("--root", target, *line).stdout == before[" ".join(line)][1]
    # Without secrets: the same findings, and the same bytes of what has none.
    public = scratch / f"{target.name}.public.tar.gz"
    redacted = vfioctl("snapshot", "-o", public, "-J", **setting)
    assert redacted.status == 0, redacted.stderr
    for line in (("list-groups", "-J"), ("list-devices", "-J")):
        assert vfioctl("--root", public, *line).stdout == before[" ".join(line)][1]
    assert findings(vfioctl("--root", public, "impact", *subjects, "-J")) == findings(
        vfioctl("impact", *subjects, "-J", **setting)
    )
    return taken.json


def findings(result: Any) -> list[tuple[str, str, str]]:
    return [
        (r["address"], use["guard"], use["level"]) for r in result.json["results"] for use in r["impacts"]
    ]


def test_a_host_in_use(vfioctl: Vfioctl, roles: Roles, scratch: Path, machine: str) -> None:
    """A device with VFIO that is held, a disk that is mounted, one that is opened, a network card with an address."""
    edu, nic, nvme = roles["edu"], roles["nic_a"], roles["nvme"]
    modprobe("e1000e", "nvme", "vfio_iommu_type1")
    for address in (nic, nvme):
        unbind(address)
        probe(address)
    name, disk = interface_of(nic), wait_for(Path("/dev/nvme0n1"))
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.254", "dev", name], check=True)
    assert vfioctl("bind", edu, "--user", 65534, "--mode", "640").status == 0
    try:
        node = vfio.group_path(int(vfioctl("show", edu, "-P", "group", "--value").stdout))
        with process(open_node(node)), process(lambda: os.open(disk, os.O_RDONLY)):
            subjects = (edu, nic, nvme, roles["disk"], roles["conv_bridge"], roles["vga"], name, "nvme0n1")
            taken = compare(vfioctl, scratch, subjects)
            assert taken["silent"] == []
            assert taken["bytes"] < 200_000
        user = compare(vfioctl, scratch, (edu, nic, roles["disk"]), user=vfioctl.unprivileged)
        assert "/proc/1/mountinfo" in user["forbidden"]
    finally:
        subprocess.run(["ip", "link", "set", name, "down"], check=True)
        assert vfioctl("unbind", edu).status == 0
        for address in (nic, nvme):
            unbind(address)


@pytest.mark.machine("smmuv3")
def test_on_arm64(vfioctl: Vfioctl, roles: Roles, scratch: Path) -> None:
    compare(vfioctl, scratch, (roles["nic_a"],))


@pytest.mark.machine("pseries")
def test_on_power(vfioctl: Vfioctl, roles: Roles, scratch: Path) -> None:
    compare(vfioctl, scratch, (roles["nic_a"], roles["edu"]))


@pytest.mark.machine("zpci")
def test_on_s390x(vfioctl: Vfioctl, roles: Roles, scratch: Path) -> None:
    compare(vfioctl, scratch, (roles["nic_a"],))


@pytest.mark.machine("no-iommu")
def test_without_an_iommu(vfioctl: Vfioctl, roles: Roles, scratch: Path) -> None:
    compare(vfioctl, scratch, (roles["edu"],))
