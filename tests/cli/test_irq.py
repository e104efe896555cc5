"""The family irq on an imitated device whose rules are those of vfio_pci_intrs.c."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.descriptors import alone
from tests.fakes.device import FakeClient, FakeDevice, FakeIrq, open_for_commands
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from vfioctl.uapi import vfio as uapi

EDU = ROLES["edu"]
INTX, MSI, MSIX, REQ = 0, 1, 2, 4
Vfioctl = Callable[..., Result]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice({}, (FakeIrq(1, 7), FakeIrq(4, 9), FakeIrq(0, 9), FakeIrq(1), FakeIrq(1)))


@pytest.fixture
def client(device: FakeDevice) -> FakeClient:
    """As the keeper does it: the host's request has its eventfd from the start."""
    client = FakeClient()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    device.eventfds[REQ, 0] = os.dup(eventfd)
    client.keep(f"irq/{EDU}/req/0", eventfd)
    os.close(eventfd)
    return client


@pytest.fixture
def vfioctl(
    device: FakeDevice, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Vfioctl:
    open_for_commands(monkeypatch, device, client, temporary=False)
    machine = FakeMachine(boot(str(tmp_path), SMALL))
    return lambda verb, *arguments: run_command(machine, "irq", verb, EDU, *arguments)


def test_list(vfioctl: Vfioctl) -> None:
    assert vfioctl("list").stdout.splitlines() == [
        "INDEX NAME VECTORS FLAGS ENABLED",
        "0 intx 1 eventfd,maskable,automasked -",
        "1 msi 4 eventfd,noresize -",
        "3 err 1 eventfd -",
        "4 req 1 eventfd 0",
    ]
    assert [irq["name"] for irq in vfioctl("list", "-a", "-J").json["irqs"]][2] == "msix"


@alone
def test_enable_wait_disable(vfioctl: Vfioctl, device: FakeDevice, client: FakeClient) -> None:
    before = len(os.listdir("/proc/self/fd"))
    found = vfioctl("enable", "msi", "--vectors", "3", "-J")
    assert found.status == 0, found.stderr
    assert (found.json["enabled"], found.json["changed"]) == ([0, 1, 2], True)
    assert vfioctl("enable", "msi", "--vectors", "3", "-J").json["changed"] is False
    assert sorted(client.fds) == [*(f"irq/{EDU}/msi/{i}" for i in range(3)), f"irq/{EDU}/req/0"]
    device.fire(MSI, 1)
    device.fire(MSI, 1)
    device.fire(MSI, 2)
    assert vfioctl("wait", "msi", "--vector", "2", "--timeout", "0", "-J").json == {
        "schema_version": 1, "device": EDU, "irq": "msi", "count": 1, "vectors": [{"vector": 2, "count": 1}],
    }  # fmt: skip
    assert vfioctl("wait", "msi", "--timeout", "0").stdout == "IRQ VECTOR COUNT\nmsi 1 2\n"
    assert vfioctl("disable", "msi", "-J").json["changed"] is True
    assert vfioctl("disable", "msi", "-J").json["changed"] is False
    assert device.eventfds.keys() == {(REQ, 0)} and list(client.fds) == [f"irq/{EDU}/req/0"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_else_is_kept_is_no_vector(vfioctl: Vfioctl, client: FakeClient) -> None:
    eventfd = os.eventfd(1)
    for name in ("msi", "msi/", "msi/x", "msi/0/1", "../msi/1"):
        client.keep(f"irq/{EDU}/{name}", eventfd)
    os.close(eventfd)
    assert [irq["enabled"] for irq in vfioctl("list", "-J").json["irqs"]] == [[], [], [], [0]]


def test_wait_waits(vfioctl: Vfioctl, device: FakeDevice) -> None:
    assert vfioctl("enable", "msi").status == 0
    timers = [threading.Timer(delay, device.fire, (MSI,)) for delay in (0.05, 0.1)]
    for timer in timers:
        timer.start()
    assert vfioctl("wait", "msi", "--count", "2", "--timeout", "10", "-J").json["count"] == 2
    for timer in timers:
        timer.join()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_a_timeout_that_is_none(vfioctl: Vfioctl, seconds: str) -> None:
    refused = vfioctl("wait", "msi", f"--timeout={seconds}", "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "usage")


def test_nothing_comes(vfioctl: Vfioctl, device: FakeDevice) -> None:
    found = vfioctl("wait", "msi", "--timeout", "0.05", "-J")
    assert (found.status, found.stdout, found.json_error["code"]) == (124, "", "no-interrupt")
    assert (MSI, 0) in device.eventfds, "it has been enabled, and stays so"
    device.fire(MSI)
    fewer = vfioctl("wait", "msi", "--count", "2", "--timeout", "0.05", "-J")
    assert (fewer.status, fewer.json["count"]) == (124, 1)


def test_intx_is_masked_when_it_fires(vfioctl: Vfioctl, device: FakeDevice) -> None:
    assert vfioctl("enable", "intx").status == 0
    device.fire(INTX)
    device.fire(INTX)
    assert vfioctl("wait", "intx", "--timeout", "0", "-J").json["count"] == 1
    assert INTX in device.masked
    assert vfioctl("wait", "intx", "--timeout", "0").status == 124
    assert vfioctl("unmask", "intx").status == 0 and not device.masked
    device.fire(INTX)
    assert vfioctl("wait", "intx", "--timeout", "0", "--unmask").status == 0
    assert not device.masked
    assert vfioctl("mask", "intx").status == 0 and device.masked


def test_the_hosts_request_stays_to_be_seen(vfioctl: Vfioctl, device: FakeDevice) -> None:
    assert vfioctl("wait", "req", "--timeout", "0").status == 124
    device.fire(REQ)
    for _ in range(2):
        assert vfioctl("wait", "req", "--timeout", "0").stdout == "IRQ VECTOR COUNT\nreq 0 1\n"


@pytest.mark.parametrize("kind", ["intx", "msi", "err", "req"])
def test_loopback(vfioctl: Vfioctl, device: FakeDevice, client: FakeClient, kind: str) -> None:
    before = dict(client.fds), set(device.eventfds)
    found = vfioctl("test", kind, "-J")
    assert found.status == 0, found.stderr
    assert found.json == {"schema_version": 1, "device": EDU, "irq": kind, "vector": 0, "arrived": True}
    assert (client.fds, set(device.eventfds)) == before
    assert vfioctl("wait", "req", "--timeout", "0").status == 124, "the keeper has seen no request"
    device.fire(REQ)
    assert vfioctl("wait", "req", "--timeout", "0").status == 0, "and would see one"


def test_loopback_of_what_is_enabled_loses_nothing(vfioctl: Vfioctl, device: FakeDevice) -> None:
    assert vfioctl("enable", "msi", "--vectors", "2").status == 0
    device.fire(MSI, 1)
    assert vfioctl("test", "msi", "--vector", "1").status == 0
    assert vfioctl("wait", "msi", "--timeout", "0", "-J").json["vectors"] == [{"vector": 1, "count": 1}]


def test_a_deaf_loopback_is_a_no(
    vfioctl: Vfioctl, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfioctl.cli.commands.irq.test.PATIENCE", 0.05)
    device.deaf = True
    found = vfioctl("test", "msi", "-J")
    assert (found.status, found.json["arrived"]) == (1, False)


@pytest.mark.parametrize(
    ("verb", "arguments", "status", "code"),
    [
        ("enable", ("msix",), 3, "no-such-irq"),
        ("enable", ("msi", "--vectors", "5"), 3, "no-such-irq"),
        ("test", ("msi", "--vector", "4"), 3, "no-such-irq"),
        ("enable", ("nothing",), 3, "no-such-irq"),
        ("enable", ("msi",), 2, "irq-enabled"),
        ("test", ("msi",), 2, "irq-enabled"),
        ("mask", ("msi",), 2, "not-maskable"),
        ("wait", ("msi", "--unmask"), 2, "usage"),
        ("wait", ("intx", "--count", "2"), 2, "usage"),
    ],
)
def test_what_cannot_be(
    vfioctl: Vfioctl, verb: str, arguments: tuple[str, ...], status: int, code: str
) -> None:
    assert vfioctl("enable", "intx").status == 0
    found = vfioctl(verb, *arguments, "-J")
    assert (found.status, found.json_error["code"], found.stdout) == (status, code, ""), found.stderr


def test_what_is_not_enabled_cannot_be_masked(vfioctl: Vfioctl) -> None:
    assert vfioctl("mask", "intx", "-J").json_error["code"] == "irq-disabled"


def test_too_few_vectors_are_said(vfioctl: Vfioctl, device: FakeDevice) -> None:
    device.answers["VFIO_DEVICE_SET_IRQS"] = lambda argument: 2
    found = vfioctl("enable", "msi", "--vectors", "4", "-J")
    assert (found.status, found.json_error["code"]) == (7, "vectors")
    assert "can have 2 vectors" in found.json_error["message"]


@pytest.mark.parametrize("verb", ["enable", "disable", "mask", "unmask"])
def test_what_would_not_stay_is_refused(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    open_for_commands(monkeypatch, device, FakeClient(), temporary=True)
    found = run_command(FakeMachine(boot(str(tmp_path), SMALL)), "irq", verb, EDU, "intx", "-J")
    assert (found.status, found.json_error["code"]) == (2, "no-container")
    assert not device.eventfds


def test_other_buses_have_numbers(vfioctl: Vfioctl, device: FakeDevice) -> None:
    device.flags = uapi.VFIO_DEVICE_FLAGS_PLATFORM
    assert [irq["name"] for irq in vfioctl("list", "-J").json["irqs"]] == ["0", "1", "3", "4"]
    assert vfioctl("test", "1").status == 0
    device.flags = uapi.VFIO_DEVICE_FLAGS_CCW
    assert vfioctl("list", "-J").json["irqs"][0]["name"] == "io"
