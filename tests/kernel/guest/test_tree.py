"""tree and the states of show against the kernel's own facts, lspci and setpci."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import (
    GROUPS,
    PCI,
    driver_of,
    group_of,
    modprobe,
    on_host_driver,
    without_driver,
)

REST = ("power_state", "power/runtime_status", "power/runtime_active_time")
Functions = Mapping[str, dict[str, Any]]


def tree(vfioctl: Vfioctl, *arguments: object, **setting: Any) -> dict[str, dict[str, Any]]:
    """Address to record; ``above`` added: what the function hangs on."""
    result = vfioctl("tree", *arguments, "-J", **setting)
    assert result.status == 0, result.stderr
    found: dict[str, dict[str, Any]] = {}

    def collect(functions: list[dict[str, Any]], above: str | None) -> None:
        for function in functions:
            assert function["address"] not in found
            found[function["address"]] = {**function, "above": above}
            collect(function["virtual_functions"], function["address"])
            collect(function["bridge"]["functions"] if function["bridge"] else [], function["address"])

    for root in result.json["roots"]:
        collect(root["functions"], None)
    return found


def lspci(*arguments: str) -> str:
    done = subprocess.run(["lspci", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def found(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Functions:
    modprobe("e1000")
    on_host_driver(roles["nic_a"], "e1000e")
    on_host_driver(roles["nvme"], "nvme")
    return tree(vfioctl)


def test_places_are_those_of_sysfs(found: Functions) -> None:
    assert sorted(found) == sorted(os.listdir(PCI))
    for address, function in found.items():
        directory = (PCI / address).resolve()
        parent = directory.parent.name
        assert function["above"] == (None if parent.startswith("pci") else parent), address
        assert (function["driver"], function["group"]) == (driver_of(address), group_of(address))
        assert (function["bridge"] is not None) == function["class"].startswith("0604"), address
        if function["bridge"]:
            buses = [path.name for path in (directory / "pci_bus").iterdir()]
            assert function["bridge"]["secondary"] == min(buses), address


def test_the_drawing_has_the_slots_and_buses_of_lspci(vfioctl: Vfioctl, found: Functions) -> None:
    lines = vfioctl("tree", "-n", "-o", "address").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == list(found)
    theirs = lspci("-t")
    ours = "".join(line.rsplit(" ", 1)[0] for line in lines)
    assert lines[0].startswith("-[0000:00]-+-00.0") and theirs.startswith("-[0000:00]-+-00.0")
    for pattern in (r"[0-9a-f]{2}\.[0-7]", r"[0-9a-f.]+-\[[0-9a-f-]+\]"):
        assert sorted(re.findall(pattern, ours)) == sorted(re.findall(pattern, theirs))
    terminal = vfioctl("--color", "never", "tree", tty=True, env={"COLUMNS": "60"}).stdout.splitlines()
    assert max(map(len, terminal[: len(found) + 1])) == 60


def test_acs_is_that_of_setpci(found: Functions, roles: Mapping[str, str]) -> None:
    bits = {"SV": 1, "TB": 2, "RR": 4, "CR": 8, "UF": 16, "EC": 32, "DT": 64}
    with_acs = 0
    for address, function in found.items():
        asked = ["setpci", "-s", address, "ECAP_ACS+4.w", "ECAP_ACS+6.w"]
        words = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        acs = function["acs"]
        assert acs["present"] == bool(words), address
        if acs["present"]:
            can, control = (int(word, 16) for word in words)
            assert [name for name, bit in bits.items() if can & bit] == acs["supported"]
            assert [name for name, bit in bits.items() if control & bit] == acs["enabled"]
            with_acs += 1
    assert with_acs >= 6
    assert found[roles["port_a"]]["acs"]["enabled"] == ["SV", "RR", "CR", "UF"]
    assert found[roles["switch_down0"]]["acs"]["present"] is False


def test_states_are_those_of_lspci(vfioctl: Vfioctl, roles: Mapping[str, str], tmp_path: Path) -> None:
    names = {
        "acs": "Access Control Services",
        "ats": "Address Translation Service (ATS)",
        "pri": "Page Request Interface (PRI)",
        "pasid": "Process Address Space ID (PASID)",
        "rebar": "Physical Resizable BAR",
        "aer": "Advanced Error Reporting",
    }
    # From a dump, and without names: then lspci does not read the lists of modules and ids, which takes long.
    dump = tmp_path / "dump"
    dump.write_text(lspci("-Dxxxx"))
    told = dict(part.split(" ", 1) for part in lspci("-Dnvv", "-F", str(dump)).strip().split("\n\n"))
    for role in ("port_a", "nic_a", "edu", "conv_bridge"):
        theirs = told[roles[role]]
        ours = vfioctl("show", roles[role], "-J").json["device"]
        for key, name in names.items():
            assert ours[key]["present"] == (name in theirs), (role, key)
        words = {"correctable": "CorrErr", "nonfatal": "NonFatalErr", "fatal": "FatalErr"}
        control = re.search(r"DevCtl:\s(.*)", theirs)
        if ours["aer"]["present"]:
            assert control is not None
            assert ours["aer"]["enabled"] == [
                key for key, word in words.items() if re.search(rf"(^|\s){word}\+", control[1])
            ]
            assert ours["aer_counters"]["fatal"] == {"total": 0}
        speed = re.search(r"LnkSta:\sSpeed ([\d.]+GT/s).*?Width x(\d+)", theirs)
        assert (speed is None) == (ours["current_link_width"] in (None, 0))
        if speed is not None:
            assert float(ours["current_link_speed"].split()[0]) == float(speed[1].removesuffix("GT/s"))
            assert ours["current_link_width"] == int(speed[2])
        methods = PCI / roles[role] / "reset_method"
        assert (ours["reset_method"] or []) == (methods.read_text().split() if methods.exists() else [])


def test_virtual_functions_hang_on_their_physical_one(
    vfioctl: Vfioctl, found: Functions, roles: Mapping[str, str]
) -> None:
    address = roles["nvme"]
    numvfs = PCI / address / "sriov_numvfs"
    numvfs.write_text("2")
    try:
        virtual = sorted(os.readlink(PCI / address / f"virtfn{i}").rpartition("/")[2] for i in range(2))
        record = tree(vfioctl, address)[address]
        assert sorted(f["address"] for f in record["virtual_functions"]) == virtual
        assert {f["physfn"] for f in record["virtual_functions"]} == {address}
        assert list(tree(vfioctl, virtual[1])) == [roles["port_nvme"], address, virtual[1]]
        assert vfioctl("tree", address).stdout.count(" VF ") == 2
        shown = vfioctl("show", virtual[0], "-J").json["device"]
        assert (shown["physfn"], shown["pasid"]) == (address, {"present": False, "enabled": False})
    finally:
        numvfs.write_text("0")


def test_who_is_not_root_sees_the_tree_without_states(
    vfioctl: Vfioctl, found: Functions, roles: Mapping[str, str]
) -> None:
    seen = tree(vfioctl, user=Vfioctl.unprivileged)
    for address, function in seen.items():
        assert function["acs"] is None
        assert {**found[address], "acs": None, "virtual_functions": [], "bridge": None} == {
            **function,
            "virtual_functions": [],
            "bridge": None,
        }
        if function["bridge"]:
            assert function["bridge"]["secondary"] == found[address]["bridge"]["secondary"]
    drawn = vfioctl("tree", user=Vfioctl.unprivileged)
    (note,) = drawn.stderr.splitlines()
    assert f"of {len(found)} functions could not be read whole" in note
    assert " ? " in drawn.stdout and "SV" not in drawn.stdout
    port = vfioctl("show", roles["port_a"], user=Vfioctl.unprivileged)
    assert "acs=-\n" in port.stdout and "config_size=64\n" in port.stdout and roles["port_a"] in port.stderr


def rest(address: str) -> tuple[str, str, str]:
    """The D-state, and how long in milliseconds the device has not slept."""
    top = PCI / address
    return tuple((top / name).read_text().strip() for name in REST)  # type: ignore[return-value]


def fallen_asleep(address: str) -> tuple[str, str, str]:
    """The same, when the device has gone to sleep, which it does a moment after its driver allows it."""
    until = time.monotonic() + 10
    while (found := rest(address))[1] != "suspended":
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


@pytest.fixture
def idle(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[str]:
    """A device that vfio-pci has, and nobody has open: in D3hot."""
    address = roles["nic_b"]
    assert vfioctl("bind", address).status == 0
    yield address
    assert vfioctl("unbind", address).status == 0


@pytest.fixture
def sleeping_port(roles: Mapping[str, str], idle: str) -> Iterator[str]:
    """The port above: without a driver and with nothing awake behind it a port sleeps, in D0."""
    address = roles["port_b"]
    control = PCI / address / "power/control"
    before = control.read_text()
    with without_driver(address):
        control.write_text("auto")
        yield address
        control.write_text(before)


def test_what_idles_in_d3hot_is_asked_and_sleeps_on(vfioctl: Vfioctl, idle: str) -> None:
    before = fallen_asleep(idle)
    assert before[0] == "D3hot"
    record = tree(vfioctl, idle)[idle]
    assert (record["asleep"], record["acs"]["present"]) == (False, False)
    assert vfioctl("show", idle, "-J").json["device"]["aer"]["present"] is True
    assert rest(idle) == before


def test_what_is_behind_a_sleeping_bridge_is_left_alone(
    vfioctl: Vfioctl, idle: str, sleeping_port: str
) -> None:
    before = fallen_asleep(sleeping_port)
    record = tree(vfioctl, idle)[idle]
    assert (record["asleep"], record["acs"]) == (True, None)
    shown = vfioctl("show", idle)
    assert "asleep" in shown.stderr and "acs=-\n" in shown.stdout
    assert rest(sleeping_port) == before
    for _ in range(200):  # that would wake it
        (PCI / idle / "config").read_bytes()
    assert fallen_asleep(sleeping_port) != before


def change(group: int, wanted: str) -> bool:
    """Whether the kernel changes the type of the group's default domain."""
    try:
        (GROUPS / str(group) / "type").write_text(wanted)
    except OSError:
        return False
    return True


def test_types_of_domains_change_as_foretold(
    vfioctl: Vfioctl, roles: Mapping[str, str], found: Functions
) -> None:
    def foretold(group: int) -> dict[str, bool]:
        changes = vfioctl("show", group, "-J").json["group"]["type_changes"]
        return {each["type"]: each["possible"] for each in changes}

    def tried(group: int, types: Iterable[str]) -> dict[str, bool]:
        file = GROUPS / str(group) / "type"
        before = file.read_text().strip()
        answers = {}
        for wanted in types:
            answers[wanted] = change(group, wanted)
            assert file.read_text().strip() == before or change(group, before)
        return answers

    card, several, port = (group_of(roles[role]) for role in ("nic_a", "mf0", "port_a"))
    # While there are drivers DMA-FQ is possible, and there is no way back from it.
    back = ("identity", "auto")
    assert tried(card, back) == {name: foretold(card)[name] for name in back} == dict.fromkeys(back, False)
    assert tried(port, back) == {name: foretold(port)[name] for name in back}
    with without_driver(roles["nic_a"]):
        said = foretold(card)
        assert tried(card, said) == said == dict.fromkeys(("DMA-FQ", *back), True)
    with without_driver(roles["mf1"]):
        said = foretold(several)
        assert tried(several, said) == said and len(said) == 3
