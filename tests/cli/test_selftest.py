"""vfioctl selftest and show --live on an imitated device and keeper: every verdict, and what is not tried."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.descriptors import alone
from tests.fakes.device import MMAP, READ, WRITE, FakeClient, FakeDevice, FakeRegion, open_for_commands
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from tests.policy.test_pci_config import dump
from vfioctl.errors import KernelRefusal
from vfioctl.host.vfio import GroupStatus
from vfioctl.ops import selftest
from vfioctl.ops.keeper import named, spawn
from vfioctl.uapi import feature, vfio

EDU = ROLES["edu"]
STEPS = [
    "node", "permitted", "viable", "container", "iova-ranges", "map", "device", "regions", "config", "interrupts",
    "reset", "dma", "given-back",
]  # fmt: skip


class Keeper(FakeClient):
    """A container that maps into a bytearray."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__()
        self.device = device
        self.memory = bytearray(1 << 16)
        self.record = {
            "groups": [],
            "backend": "type1v2",
            "page_sizes": 0x1000,
            "iova_ranges": ((0, 0xFEDFFFFF), (0xFEF00000, 0x7FFFFFFFFF)),
        }
        self.answers = {
            "add": lambda fields: self.record.update(groups=fields["groups"]) or {},
            "map": lambda fields: {"mappings": [[0x1000, fields["size"], "rw", "anonymous"]]},
            "unmap": lambda fields: {"unmapped": 4096},
        }

    def write(self, iova: int, data: bytes) -> None:
        self.memory[iova : iova + len(data)] = data

    def read(self, iova: int, size: int) -> bytes:
        return bytes(self.memory[iova : iova + size])

    def open_device(self, name: str) -> int:
        return os.dup(self.device.fd)


class Bench:
    """edu on vfio-pci, and what stands between it and the command."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device = FakeDevice(
            {0: FakeRegion(0x2000, READ | WRITE | MMAP), 7: FakeRegion(256, READ | WRITE, dump("edu"))}
        )
        self.keeper = Keeper(self.device)
        self.machine = FakeMachine(boot(str(tmp_path), SMALL))
        self.holding: str | None = None
        self.status = GroupStatus(True, False)
        self.permitted = True
        assert run_command(self.machine, "bind", EDU).status == 0
        open_for_commands(monkeypatch, self.device, self.keeper, temporary=True)

        @contextlib.contextmanager
        def connection(*arguments: Any) -> Iterator[Keeper]:
            yield self.keeper

        monkeypatch.setattr(spawn, "temporary", connection)
        monkeypatch.setattr(named, "connected", connection)
        monkeypatch.setattr(named, "holding", lambda machine, group: self.holding)
        monkeypatch.setattr(named, "names", lambda machine: [self.holding] if self.holding else [])
        monkeypatch.setattr(selftest, "usable", lambda path: self.permitted)
        monkeypatch.setattr(selftest, "group_status", lambda *arguments: self.status)

    def run(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        found = run_command(self.machine, "selftest", EDU, "-J", *arguments)
        assert found.status in (0, 1), found.stderr
        checks = found.json["checks"]
        assert found.json["passed"] is (found.status == 0)
        return found.status, {check["step"]: check for check in checks}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def verdicts(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {step: check["verdict"] for step, check in checks.items()}


@alone
def test_all_is_well(bench: Bench) -> None:
    before = len(os.listdir("/proc/self/fd"))
    status, checks = bench.run()
    assert status == 0
    assert list(checks) == STEPS
    assert verdicts(checks) == {step: "not-tested" if step == "dma" else "ok" for step in STEPS}
    assert checks["container"]["detail"] == "type1v2"
    assert checks["config"]["detail"] == "1234:11e8, 1 capabilities"
    assert checks["interrupts"]["detail"] == "loopback of intx, msi, err, req"
    assert bench.device.resets == 1 and not bench.device.eventfds
    assert len(os.listdir("/proc/self/fd")) == before


def test_for_people(bench: Bench) -> None:
    lines = run_command(bench.machine, "selftest", EDU).stdout.splitlines()
    assert lines[0] == "VERDICT STEP SUBJECT DETAIL"
    assert lines[1].startswith("ok node 2 ") and len(lines) == len(STEPS) + 1


def test_without_a_node_nothing_is_tried(bench: Bench) -> None:
    assert run_command(bench.machine, "unbind", EDU).status == 0
    status, checks = bench.run()
    assert status == 1
    assert checks["node"]["verdict"] == "failed" and "vfioctl bind" in checks["node"]["cure"]
    assert set(verdicts(checks).values()) == {"failed", "not-tested"}
    assert checks["map"]["detail"] == "node failed"


def test_without_permission(bench: Bench) -> None:
    bench.permitted = False
    status, checks = bench.run()
    assert (status, checks["permitted"]["verdict"]) == (1, "failed")
    assert checks["permitted"]["cure"].startswith("as root: vfioctl permit 2 --user")


def test_a_container_that_is_refused(bench: Bench) -> None:
    def refuse(fields: Any) -> dict[str, Any]:
        raise KernelRefusal("no interrupt remapping", hint="switch it on")

    bench.keeper.answers["add"] = refuse
    status, checks = bench.run()
    assert (status, checks["container"]["verdict"], checks["container"]["cure"]) == (
        1,
        "failed",
        "switch it on",
    )
    assert checks["device"]["detail"] == "container failed"
    assert checks["given-back"]["verdict"] == "not-tested"


def test_memory_that_is_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.keeper, "read", lambda iova, size: bytes(size))
    status, checks = bench.run()
    assert (status, checks["map"]["verdict"], checks["device"]["verdict"]) == (1, "failed", "ok")


def test_without_an_iommu_nothing_is_mapped(bench: Bench) -> None:
    def refuse(fields: Any) -> dict[str, Any]:
        raise KernelRefusal("group 2 has no IOMMU: nothing can be mapped for it", code="no-iommu")

    bench.keeper.answers["map"] = refuse
    bench.keeper.record["page_sizes"] = None
    status, checks = bench.run()
    assert (status, checks["map"]["verdict"], checks["device"]["verdict"]) == (0, "not-tested", "ok")


def test_configuration_space_of_another_device(bench: Bench) -> None:
    os.pwrite(bench.device.fd, b"\x86\x80", 7 << 20)
    status, checks = bench.run()
    assert (status, checks["config"]["verdict"]) == (1, "failed")
    assert checks["config"]["detail"] == "it is 8086:11e8, and sysfs says 1234:11e8"


def test_interrupts_that_do_not_arrive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "PATIENCE", 0.01)
    bench.device.deaf = True
    status, checks = bench.run()
    assert (status, checks["interrupts"]["verdict"]) == (1, "failed")


def test_what_cannot_be_tested_is_said(bench: Bench) -> None:
    bench.device.flags &= ~vfio.VFIO_DEVICE_FLAGS_RESET
    bench.device.irqs = ()
    bench.keeper.record["iova_ranges"] = None
    status, checks = bench.run()
    assert status == 0
    for step, why in (("reset", "no reset"), ("interrupts", "has none"), ("iova-ranges", "does not tell")):
        assert checks[step]["verdict"] == "not-tested" and why in checks[step]["detail"]


def test_in_an_open_container_nothing_is_disturbed(bench: Bench) -> None:
    bench.holding = "work"
    bench.keeper.record["groups"] = [2]
    status, checks = bench.run()
    assert status == 0
    assert checks["container"]["detail"] == "type1v2 of the open container work"
    assert checks["reset"]["verdict"] == checks["given-back"]["verdict"] == "not-tested"
    assert bench.device.resets == 0


def test_what_is_not_given_back_is_a_failure(bench: Bench) -> None:
    bench.status = GroupStatus(True, True)
    status, checks = bench.run()
    assert (status, checks["given-back"]["verdict"]) == (1, "failed")


# --- show -----------------------------------------------------------------------------------------

Show = Callable[..., Result]


def test_show_opens_only_when_it_is_told(bench: Bench) -> None:
    assert run_command(bench.machine, "show", EDU, "-J").json["device"]["live"] is None
    assert "VFIO_DEVICE_GET_INFO" not in bench.device.calls
    assert run_command(bench.machine, "show", "2", "--live").status == 2


def test_show_live(bench: Bench) -> None:
    bench.device.features = {
        feature.VFIO_DEVICE_FEATURE_MIGRATION: (3).to_bytes(8, "little"),
        feature.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: (2).to_bytes(4, "little"),
        feature.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY: b"",
    }
    live = run_command(bench.machine, "show", EDU, "--live", "-J").json["device"]["live"]
    assert live["flags"] == ["reset", "pci"]
    assert [region["name"] for region in live["regions"]] == ["bar0", "config"]
    assert [irq["name"] for irq in live["irqs"]] == ["intx", "msi", "err", "req"]
    assert live["migration"] == {"flags": ["stop_copy", "p2p"], "state": "running", "stop_copy_length": None}
    assert {name for name, has in live["features"].items() if has} == {
        "migration",
        "mig_device_state",
        "low_power_entry",
    }
    lines = run_command(bench.machine, "show", EDU, "--live").stdout.splitlines()
    assert "live.migration.state=running" in lines and "live.regions.0.name=bar0" in lines


def test_show_asks_a_device_that_is_open(bench: Bench) -> None:
    bench.holding = "work"
    bench.keeper.record["devices"] = [{"address": EDU, "open": False}]
    assert run_command(bench.machine, "show", EDU, "-J").json["device"]["live"] is None
    bench.keeper.record["devices"] = [{"address": EDU, "open": True}]
    assert run_command(bench.machine, "show", EDU, "-J").json["device"]["live"]["migration"] is None
