"""vfioctl impact, and bind as it refuses: the same findings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, boot
from tests.fakes.uses import A, B, Host

NIC, CONV = ROLES["nic_a"], ROLES["conv_edu0"]
GROUP = 12


def impact(host: Host, *arguments: object) -> Result:
    return run_command(None, "--root", host.root, "impact", *arguments)


def findings(document: Any) -> list[tuple[str, str, str, bool]]:
    return [
        (result["address"], use["guard"], use["level"], use["allowable"])
        for result in document["results"]
        for use in result["impacts"]
    ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Two controllers with drivers; A has a disk that is mounted, B one with data."""
    host = Host(str(tmp_path))
    for address, disk, number in ((A, "sda", "8:0"), (B, "sdb", "8:16")):
        host.bind("pci", address, "ahci")
        host.disk(disk, number, address)
    host.mount("/dev/sda", "/", number="8:0")
    host.udev("sdb", ID_FS_TYPE="ext4")
    return host


def test_something_in_use(host: Host) -> None:
    result = impact(host, A, "-J")
    assert result.status == 1 and result.stderr == ""
    assert result.json == {
        "schema_version": 1,
        "results": [
            {
                "subject": A,
                "address": A,
                "bus": "pci",
                "group": 5,
                "driver": "ahci",
                "impacts": [
                    {
                        "guard": "root-disk",
                        "level": "refuse",
                        "evidence": "sda is mounted on /",
                        "allowable": True,
                    }
                ],
                "siblings": [],
            }
        ],
    }


def test_a_warning_is_no_use(host: Host) -> None:
    result = impact(host, "6", "-J")
    assert result.status == 0
    assert findings(result.json) == [(B, "has-data", "warn", False)]
    assert result.json["results"][0]["subject"] == "6"


def test_several_subjects(host: Host) -> None:
    result = impact(host, B, "5", A, "-J")
    assert result.status == 1
    assert [(r["subject"], r["address"]) for r in result.json["results"]] == [("5", A), (B, B)]


def test_judged_together(host: Host) -> None:
    for address in (A, B):
        host.keyboard(f"{host.homes['pci', address]}/usb1/input/input1")
    assert "last-keyboard" not in impact(host, A).stdout + impact(host, B).stdout
    assert impact(host, A, B).stdout.count("last-keyboard") == 2


def test_the_exit_status_is_the_answer(host: Host) -> None:
    for address, status in ((A, 1), (B, 0)):
        result = impact(host, "-q", address)
        assert (result.status, result.stdout, result.stderr) == (status, "", "")


@pytest.mark.parametrize(
    ("name", "status"), [("0000:ff:00.0", 3), ("99", 3), ("no-such-nic", 3), ("../x", 2)]
)
def test_what_is_not_there(host: Host, name: str, status: int) -> None:
    result = impact(host, name, "-J")
    assert (result.status, result.stdout) == (status, "")


def test_a_row_for_each_finding_and_one_for_none(host: Host) -> None:
    host.interface("eth0", B)
    host.route("eth0", gateway=True)
    host.add("0000:00:07.0", 7)
    result = impact(
        host, A, B, "7", "-o", "address,guard,level,evidence,allowable", "--format", "plain", "-n"
    )
    assert result.stdout.splitlines() == [
        f"{A} root-disk refuse sda\\x20is\\x20mounted\\x20on\\x20/ yes",
        f"{B} default-route refuse the\\x20IPv4\\x20default\\x20route\\x20leaves\\x20through\\x20eth0 yes",
        f"{B} has-data warn udev\\x20has\\x20found\\x20ext4\\x20on\\x20sdb no",
        "0000:00:07.0 - - - -",
    ]


def test_yaml(host: Host) -> None:
    assert "guard: root-disk" in impact(host, A, "--format", "yaml").stdout


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return boot(str(tmp_path))


def on_machine(kernel: FakeKernel, *arguments: object) -> Result:
    return run_command(FakeMachine(kernel), *arguments)


class TestGroups:
    def test_the_members_that_a_bind_moves(self, kernel: FakeKernel) -> None:
        """A bridge that blocks is among them, and what is behind it."""
        result = on_machine(kernel, "impact", ROLES["conv_nic"], "-J")
        assert result.status == 0
        assert result.json["results"][0]["siblings"] == [ROLES["conv_bridge"]]
        assert findings(result.json) == [(ROLES["conv_nic"], "siblings", "warn", False)]
        result = on_machine(kernel, "impact", "14", "-J")
        assert [r["address"] for r in result.json["results"]] == [
            ROLES[role] for role in ("conv_bridge", "conv_edu0", "conv_edu1", "conv_nic")
        ]
        assert findings(result.json) == []

    def test_a_device_stands_for_its_group_when_that_is_asked(self, kernel: FakeKernel) -> None:
        alone = on_machine(kernel, "impact", CONV, "-J")
        whole = on_machine(kernel, "impact", CONV, "--group", "-J")
        group = on_machine(kernel, "impact", kernel.devices[CONV].group, "-J")
        assert [result["address"] for result in alone.json["results"]] == [CONV]
        moved = [result["address"] for result in group.json["results"]]
        assert [result["address"] for result in whole.json["results"]] == moved and len(moved) > 1

    def test_a_bridge_by_its_name(self, kernel: FakeKernel) -> None:
        result = on_machine(kernel, "impact", ROLES["port_a"], "-J")
        assert result.status == 1
        assert findings(result.json)[0] == (ROLES["port_a"], "bridge", "refuse", False)

    def test_a_group_of_bridges(self, kernel: FakeKernel) -> None:
        result = on_machine(kernel, "impact", "5", "-J")
        assert (result.status, result.json["results"]) == (0, [])

    def test_what_has_left_the_host(self, kernel: FakeKernel) -> None:
        tree = kernel.tree
        tree.put(f"{tree.homes['pci', ROLES['vga']]}/boot_vga", "1\n")
        assert on_machine(kernel, "impact", "-q", ROLES["vga"]).status == 1
        assert on_machine(kernel, "bind", ROLES["vga"], "--allow", "boot-vga").status == 0
        assert on_machine(kernel, "impact", "-q", ROLES["vga"]).status == 0
        assert on_machine(kernel, "unbind", ROLES["vga"]).status == 0


Prepare = Callable[[FakeKernel], None]


def with_route(kernel: FakeKernel) -> None:
    """Through the interface that the fake's e1000e offers."""
    lines = ["Iface Destination", "eth0 00000000 020200C0 0003 0 0 0 00000000 0 0 0"]
    kernel.tree.put("/proc/net/route", "\n".join(lines) + "\n")


def with_keyboard(kernel: FakeKernel) -> None:
    home = kernel.tree.homes["pci", NIC].removeprefix("/sys")
    text = f'N: Name="K"\nS: Sysfs={home}/usb1/input1\nH: Handlers=sysrq kbd \nB: EV=120013\nB: KEY=fffffffffffffffe\n'
    kernel.tree.put("/proc/bus/input/devices", text)


def with_claim(kernel: FakeKernel) -> None:
    kernel.tree.put(f"/etc/driverctl.d/pci-{NIC}", "e1000e\n")


CASES = [
    pytest.param(with_route, "default-route", id="route"),
    pytest.param(with_keyboard, "last-keyboard", id="keyboard"),
    pytest.param(with_claim, "driverctl", id="claim"),
]


class TestBind:
    @pytest.mark.parametrize(("prepare", "guard"), CASES)
    def test_refused_with_what_impact_shows(self, kernel: FakeKernel, prepare: Prepare, guard: str) -> None:
        prepare(kernel)
        shown = on_machine(kernel, "impact", NIC, "-J")
        assert findings(shown.json) == [(NIC, guard, "refuse", True)]
        for arguments in (("bind", NIC), ("bind", str(GROUP)), ("bind", NIC, "--dry-run")):
            refused = on_machine(kernel, *arguments, "-J")
            error = refused.json_error
            assert (refused.status, error["code"]) == (5, guard)
            evidence = shown.json["results"][0]["impacts"][0]["evidence"]
            if "--dry-run" in arguments:
                assert refused.json["impacts"] == shown.json["results"]
                assert any("/driver_override" in line for line in refused.json["commands"])
                text = on_machine(kernel, *arguments).stdout
                assert text.startswith(f"# {NIC}: {guard} (refuse): {evidence}\n")
            else:
                assert refused.stdout == ""
            assert error["guards"] == [{"guard": guard, "subject": NIC, "evidence": evidence}]
            assert error["hint"].endswith(f"--allow {guard}")
        assert kernel.writes == []
        allowed = on_machine(kernel, "bind", NIC, "--allow", guard, "--dry-run")
        assert allowed.status == 0 and allowed.stdout.startswith(f"# {NIC}: {guard} (allowed): ")
        assert on_machine(kernel, "bind", NIC, "--allow", guard).status == 0
        assert kernel.devices[NIC].driver == "vfio-pci"

    def test_each_guard_has_its_own_word(self, kernel: FakeKernel) -> None:
        for prepare in (with_route, with_keyboard, with_claim):
            prepare(kernel)
        guards = ["default-route", "last-keyboard", "driverctl"]
        for number, guard in enumerate(guards):
            allowed = [word for name in guards[:number] for word in ("--allow", name)]
            refused = on_machine(kernel, "bind", NIC, *allowed, "-J")
            assert (refused.status, refused.json_error["code"]) == (5, guard)
            left = " ".join(f"--allow {name}" for name in guards[number:])
            assert refused.json_error["hint"].endswith(f": {left}")
        assert kernel.devices[NIC].driver == "e1000e"

    def test_driverctl_wants_what_is_done(self, kernel: FakeKernel) -> None:
        kernel.tree.put(f"/etc/driverctl.d/pci-{NIC}", "vfio-pci\n")
        assert on_machine(kernel, "bind", NIC).status == 0
        refused = on_machine(kernel, "unbind", NIC, "-J")
        assert (refused.status, refused.json_error["code"]) == (5, "driverctl")
        assert kernel.devices[NIC].driver == "vfio-pci"
        assert on_machine(kernel, "unbind", NIC, "--allow", "driverctl").status == 0
        assert kernel.devices[NIC].driver == "e1000e"

    def test_as_text_every_evidence_is_a_line(self, kernel: FakeKernel) -> None:
        with_route(kernel)
        with_claim(kernel)
        lines = on_machine(kernel, "bind", NIC).stderr.splitlines()
        assert lines[:3] == [
            "vfioctl: guards default-route, driverctl:",
            f"vfioctl:   {NIC}: the IPv4 default route leaves through eth0",
            f"vfioctl:   {NIC}: /etc/driverctl.d/pci-{NIC} gives it to the driver e1000e",
        ]

    def test_what_is_bound_already_asks_for_nothing(self, kernel: FakeKernel) -> None:
        assert on_machine(kernel, "bind", NIC).status == 0
        with_keyboard(kernel)
        kernel.tree.put("/run/libvirt/qemu/vm.xml", "<domain/>")
        result = on_machine(kernel, "bind", NIC, "-J")
        assert (result.status, json.loads(result.stdout)["changed"]) == (0, False)
