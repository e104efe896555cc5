"""The benchmarks' synthetic host is what it says, and is read right. Nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.tree import build
from vfioctl.cli.app import run
from vfioctl.host.reader import read_snapshot


def test_counts(tmp_path: Path) -> None:
    counts = build(str(tmp_path), 60)
    snapshot = read_snapshot(str(tmp_path), ungrouped=True)
    assert counts == (60, 36, 2, 4)
    assert len(snapshot.devices) == counts.devices
    assert len(snapshot.groups) == counts.groups
    assert sum(device.vfio_dev is not None for device in snapshot.devices) == counts.vfio
    assert sum(device.driver is None for device in snapshot.devices) == counts.unbound
    assert all(device.pci is not None for device in snapshot.devices)


def test_a_device_is_read_whole(tmp_path: Path) -> None:
    build(str(tmp_path), 5)
    (alone, bound, shared) = read_snapshot(str(tmp_path)).groups
    (device,) = bound.devices
    assert device.address == "0000:01:00.0"
    assert (device.driver, device.driver_override, device.vfio_dev) == ("vfio-pci", "vfio-pci", "vfio0")
    assert bound.node is not None and bound.node.path == "/dev/vfio/1" and bound.node.mode == 0o600
    assert device.cdev is not None and device.cdev.path == "/dev/vfio/devices/vfio0"
    assert [d.driver for d in alone.devices] == ["pcieport"]
    assert [d.address for d in shared.devices] == ["0000:00:00.1", "0000:02:00.0", "0000:02:00.1"]
    assert [region.type for region in bound.reserved_regions] == ["msi", "reserved"]


def test_the_command_line_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(str(tmp_path), 15)
    assert run(["--root", str(tmp_path), "list-groups", "-J"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [group["id"] for group in groups] == list(range(9))
    assert [group["usable"] for group in groups] == [False, True] + [False] * 7


def test_devices_come_in_fives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 5"):
        build(str(tmp_path), 7)
