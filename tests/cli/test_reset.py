"""vfioctl reset on an imitated device: its function, its slot, and what is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.descriptors import alone
from tests.fakes.device import READ, FakeClient, FakeDevice, FakeRegion, open_for_commands
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot
from tests.policy.test_pci_config import dump
from vfioctl.host.ioctl import CallError
from vfioctl.uapi import pci, vfio

HOT_INFO, HOT_RESET = "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", "VFIO_DEVICE_PCI_HOT_RESET"
MF0, MF1 = ROLES["mf0"], ROLES["mf1"]
Vfioctl = Callable[..., Result]


class Slot:
    """Both functions of the card with two of them; which groups a reset was asked with."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = boot(str(tmp_path), ("port_mf", "mf0", "mf1"))
        self.machine = FakeMachine(self.kernel)
        assert run_command(self.machine, "bind", MF0).status == 0
        self.group = run_command(self.machine, "show", MF0, "-P", "group", "--value").stdout.strip()
        self.device = FakeDevice({7: FakeRegion(256, READ, dump("edu"))})
        self.client = FakeClient([int(self.group)])
        self.shown: list[int] = []
        self.device.answers[HOT_INFO] = self.info
        self.device.answers[HOT_RESET] = self.reset
        self.scope = [(MF0, int(self.group)), (MF1, int(self.group))]
        self.flags = 0
        open_for_commands(monkeypatch, self.device, self.client, temporary=False)

    def vfioctl(self, *arguments: object) -> Result:
        return run_command(self.machine, "reset", MF0, *arguments)

    def info(self, argument: Any) -> int:
        header, item = pci.vfio_pci_hot_reset_info, pci.vfio_pci_dependent_device
        body = b""
        for address, group in self.scope:
            domain, bus, rest = address.split(":")
            slot, function = rest.split(".")
            devfn = int(slot, 16) << 3 | int(function)
            body += item(group_id=group, segment=int(domain, 16), bus=int(bus, 16), devfn=devfn).pack()
        argument[: header.size_of + len(body)] = header(flags=self.flags, count=len(self.scope)).pack(body)
        return 0

    def reset(self, argument: Any) -> int:
        header = pci.vfio_pci_hot_reset
        self.shown.append(header.unpack(argument).count)
        return 0


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slot:
    return Slot(tmp_path, monkeypatch)


def test_the_function(slot: Slot) -> None:
    found = slot.vfioctl("-J")
    assert found.status == 0, found.stderr
    assert (found.json["method"], found.json["changed"]) == ("function", True)
    assert [each["address"] for each in found.json["scope"]] == [MF0]
    assert slot.device.resets == 1 and slot.shown == []


def test_a_function_without_a_reset(slot: Slot) -> None:
    def no(argument: Any) -> int:
        raise CallError("VFIO_DEVICE_RESET", errno.EINVAL)

    slot.device.flags &= ~vfio.VFIO_DEVICE_FLAGS_RESET
    slot.device.answers["VFIO_DEVICE_RESET"] = no
    found = slot.vfioctl("-J")
    assert (found.status, found.json_error["code"]) == (7, "no-reset")
    shown = slot.vfioctl("--show-scope", "-J")
    assert shown.json["function_reset"] is False and "no reset of its own" in shown.stderr


def test_the_scope_is_joined_with_what_is_known(slot: Slot) -> None:
    assert run_command(slot.machine, "bind", MF1).status == 0
    found = slot.vfioctl("--show-scope", "-J")
    assert found.status == 0, found.stderr
    assert found.json == {
        "schema_version": 1, "device": MF0, "method": None, "function_reset": True, "hot_reset": True, "within": True,
        "scope": [
            {"address": address, "group": int(slot.group), "driver": "vfio-pci", "held": True, "problem": None}
            for address in (MF0, MF1)
        ],
        "changed": False,
    }  # fmt: skip
    assert slot.device.resets == 0 and slot.shown == []


@alone
def test_the_slot_when_all_of_it_is_held(slot: Slot) -> None:
    assert run_command(slot.machine, "bind", MF1).status == 0
    before = len(os.listdir("/proc/self/fd"))
    found = slot.vfioctl("--hot", "-J")
    assert found.status == 0, found.stderr
    assert (found.json["method"], [each["address"] for each in found.json["scope"]]) == ("hot", [MF0, MF1])
    assert slot.shown == [1], "its one group is shown once"
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_has_no_vfio_driver_is_not_reset(slot: Slot) -> None:
    found = slot.vfioctl("--hot", "-J")
    assert (found.status, found.json_error["code"], slot.shown) == (5, "reset-scope", [])
    assert MF1 in found.json_error["message"]
    assert slot.vfioctl("--show-scope").status == 1


def test_what_is_not_held_is_not_reset(slot: Slot) -> None:
    slot.client.groups = ()
    found = slot.vfioctl("--hot", "-J")
    assert (found.status, found.json_error["code"], slot.shown) == (5, "reset-scope", [])
    assert "does not hold its group" in found.json_error["message"]


def test_an_iommufd_says_itself_what_it_owns(slot: Slot) -> None:
    assert run_command(slot.machine, "bind", MF1).status == 0
    slot.client.groups = ()
    slot.flags = pci.VFIO_PCI_HOT_RESET_FLAG_DEV_ID | pci.VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED
    slot.scope = [(MF0, 3), (MF1, 0)]
    assert slot.vfioctl("--hot").status == 0 and slot.shown == [0], (
        "by devices of their own no group is shown"
    )
    slot.scope = [(MF0, 3), (MF1, -1)]
    assert slot.vfioctl("--hot").status == 5


def test_there_may_be_no_such_reset(slot: Slot) -> None:
    def no(argument: Any) -> int:
        raise CallError(HOT_INFO, errno.ENODEV)

    slot.device.answers[HOT_INFO] = no
    shown = slot.vfioctl("--show-scope", "-J")
    assert (shown.status, shown.json["hot_reset"], shown.json["scope"]) == (1, False, [])
    assert "neither the slot nor the bus" in shown.stderr
    assert slot.vfioctl("--hot").status == 7
    assert slot.vfioctl("--hot", "--show-scope").status == 2
