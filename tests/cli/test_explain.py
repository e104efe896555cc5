"""vfioctl explain: on the files of hosts that are known, and of some that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_manual import keys, shapes
from tests.fakes.command import Result, run_command
from tests.fakes.functions import FULL_ACS, function, load, write_functions
from vfioctl.model import Device

NIC, PORT = "0000:08:00.0", "0000:07:00.0"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A PC with VT-d."""
    write_functions(str(tmp_path), load("intel"), unit="dmar0")
    return str(tmp_path)


def explain(root: str, *arguments: object) -> Result:
    return run_command(None, "--root", root, "explain", *arguments)


def test_the_shape_is_that_of_the_manual(root: str) -> None:
    ((command, shown),) = shapes("shape on a known machine")
    printed = run_command(None, "--root", root, *command)
    assert (printed.status, keys(printed.json)) == (0, keys(shown))
    (result,) = printed.json["explanations"]
    (written,) = shown["explanations"]
    assert {key: result[key] for key in ("subject", "group", "rule", "devices", "agrees")} == {
        key: written[key] for key in ("subject", "group", "rule", "devices", "agrees")
    }
    assert written["reasons"][0]["evidence"] == result["reasons"][1]["evidence"]


def test_registers_are_evidence(tmp_path: Path) -> None:
    port = function("0000:00:1c.0", None, "root-port", (0x1F, 0x11), group=1)
    write_functions(str(tmp_path), [port, function("0000:01:00.0", port, group=1)], unit="dmar0")
    result = explain(str(tmp_path), "1", "-J").json["explanations"][0]
    assert result["reasons"][1]["evidence"] == {
        "acs_capability": 0x1F, "acs_control": 0x11, "acs_missing": ["RR", "CR"]
    }  # fmt: skip
    assert result["reasons"][0]["evidence"] is None
    shown = explain(
        str(tmp_path), "1", "-n", "-o", "address,code,bridge,capability,control,missing,real,agrees,rule"
    )
    assert shown.stdout.splitlines() == [
        "0000:00:1c.0 separate - - - - yes yes pci",
        "0000:01:00.0 acs-not-enabled 0000:00:1c.0 0x001f 0x0011 RR,CR yes yes pci",
    ]


def test_what_people_are_told(root: str) -> None:
    result = explain(root, NIC, "3")
    lines = result.stderr.splitlines()
    assert lines[0] == f"vfioctl: {NIC}: isolation from other groups: not real"
    assert lines[1].startswith("vfioctl:   switch-siblings: ") and lines[3].startswith(
        "vfioctl:   cure: another-slot: "
    )
    assert lines[-1] == "vfioctl: 3: isolation from other groups: real"
    headings, *rows = result.stdout.splitlines()
    assert headings == "GROUP ADDRESS CODE BRIDGE REAL DETAIL"
    assert [row.split()[:5] for row in rows] == [
        ["17", PORT, "separate", "-", "no"],
        ["17", NIC, "no-acs", PORT, "no"],
        ["3", "0000:00:06.0", "separate", "-", "yes"],
        ["3", "0000:04:00.0", "no-acs", "0000:00:06.0", "yes"],
    ]


def test_every_group_of_the_host(root: str) -> None:
    numbers = {each.group for each in load("intel")}
    results = explain(root, *numbers, "-J").json["explanations"]
    assert {result["group"] for result in results} == numbers
    assert all(result["agrees"] for result in results)


@pytest.mark.parametrize("size", [0, 64])
def test_unknown_without_privileges(tmp_path: Path, size: int) -> None:
    write_functions(str(tmp_path), load("intel"), unit="dmar0", size=size)
    result = explain(str(tmp_path), NIC)
    assert result.status == 0
    assert f"{NIC} unreadable {PORT} unknown " in result.stdout
    assert "isolation from other groups: unknown\n" in result.stderr and "run this as root" in result.stderr
    (found,) = explain(str(tmp_path), NIC, "-J").json["explanations"]
    assert (found["isolation"]["real"], found["agrees"]) == (None, None)


def test_a_disagreement_is_said(root: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    functions = [f._replace(group=99) if f.address == NIC else f for f in load("intel")]
    write_functions(str(other), functions, unit="dmar0").put(
        "/proc/cmdline", "pcie_acs_override=downstream\n"
    )
    result = explain(str(other), "99")
    assert (result.status, result.stdout.splitlines()[1].split()[4]) == (0, "no")
    assert (
        "the kernel's grouping differs from the model: it keeps 0000:08:00.0 apart from 0000:07:00.0"
        in result.stderr
    )
    assert "acs-override: pcie_acs_override=downstream is on the kernel command line" in result.stderr


def test_without_an_iommu(tmp_path: Path) -> None:
    write_functions(str(tmp_path), [each._replace(group=None) for each in load("intel")])
    (found,) = explain(str(tmp_path), "04:00.0", "-J").json["explanations"]
    assert (found["group"], found["devices"]) == (None, ["0000:00:06.0", "0000:04:00.0"])
    assert found["isolation"]["real"] is False and found["remedies"][0]["code"] == "iommu"


def test_the_unit_that_serves_a_device(tmp_path: Path) -> None:
    tree = write_functions(str(tmp_path), [], unit="fd900000.iommu")
    tree.group(4)
    tree.device(Device("fe000000.gpu", "platform", 4, modalias="of:Ngpu"))
    unit = "/sys/devices/platform/fd900000.iommu/iommu/fd900000.iommu"
    tree.directory(unit)
    tree.link(f"{unit}/device", "/sys/devices/platform/fd900000.iommu")
    tree.link("/sys/devices/platform/fd900000.iommu/driver", "/sys/bus/platform/drivers/rk_iommu")
    tree.link("/sys/devices/platform/fe000000.gpu/iommu", unit)
    (found,) = explain(str(tmp_path), "platform/fe000000.gpu", "-J").json["explanations"]
    assert (found["rule"], found["devices"]) == ("single-group", ["platform/fe000000.gpu"])


def test_hostile_names_stay_harmless(tmp_path: Path) -> None:
    port = function("0000:00:1c.0", None, "root-port", FULL_ACS, group=1)
    tree = write_functions(str(tmp_path), [port, function("0000:01:00.0", port, group=2)], unit="dmar0")
    tree.put("/proc/cmdline", "pcie_acs_override=\x1b[31m\x07 pci=disable_acs_redir=\x1b]0;x\n")
    result = explain(str(tmp_path), "2")
    assert "\x1b" not in result.stdout + result.stderr and "\\x1b[31m" in result.stderr


@pytest.mark.parametrize(("name", "status"), [("99", 3), ("0000:ff:00.0", 3), ("../x", 2)])
def test_what_is_not_there(root: str, name: str, status: int) -> None:
    result = explain(root, name, "-J")
    assert (result.status, result.stdout) == (status, "")
