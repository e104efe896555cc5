"""What the tests of keepers work on: an imitated host before a fake VFIO."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from tests.host.fake_vfio import FakeVfio, Group
from vfioctl.host import memory, vfio
from vfioctl.host.memory import Memlock
from vfioctl.ops.backends import choice, type1
from vfioctl.ops.keeper import named


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Two devices on vfio-pci, each in a group of its own, before a fake VFIO."""
    kernel = boot(str(tmp_path), SMALL)
    machine = FakeMachine(kernel)
    machine.timeout = 20
    assert run_command(machine, "bind", ROLES["nic_a"], ROLES["nic_b"]).status == 0
    fake = FakeVfio(*(Group(number) for number in groups(machine)))
    for module in (vfio, type1):
        monkeypatch.setattr(module, "open_node", fake.open_node)
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    monkeypatch.setattr(memory, "memlock", lambda: Memlock(limit=None, locked=0, cap_ipc_lock=False))
    monkeypatch.setattr(choice, "usable", lambda path: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # where containers are kept depends on it
    monkeypatch.setattr(named, "directory", lambda machine: str(tmp_path / "run/vfioctl/containers"))
    (tmp_path / "run/vfioctl").mkdir(parents=True, exist_ok=True, mode=0o700)
    machine.fake = fake  # type: ignore[attr-defined]
    return machine


def groups(machine: FakeMachine) -> list[int]:
    devices = {device.address: device.group for device in machine.snapshot().devices}
    return [number for role in ("nic_a", "nic_b") if (number := devices[ROLES[role]]) is not None]
