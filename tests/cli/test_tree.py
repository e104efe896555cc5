"""tree, and the states in show, on imitated hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_drawing import read_dot
from tests.cli.test_output import on_terminal
from tests.fakes.command import Result, run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.topology import ROLES, SMALL, boot
from tests.fakes.tree import Tree, describe_port, port_space
from tests.policy.test_pci_states import association, space
from vfioctl.model import Device, PciIds

PORT, NIC, NVME, EDU = (ROLES[role] for role in ("port_a", "nic_a", "nvme", "edu"))
HEADINGS = ["TREE", "GROUP", "CLASS", "DRIVER", "VIABLE", "ACS", "LINK"]


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = boot(str(tmp_path / "host"), SMALL)
    for role, bus in (("port_b", 2), ("port_conv", 3), ("conv_bridge", 4), ("port_nvme", 9)):
        kernel.tree.put(f"{home(kernel.tree, ROLES[role])}/config", port_space(bus, bus, 0, 0)[:64])
    describe_port(kernel.tree, PORT)
    kernel.write(f"/sys/bus/pci/devices/{NVME}/sriov_numvfs", "2")
    return kernel


def home(tree: Tree, address: str) -> str:
    return tree.homes["pci", address]


def run(kernel: FakeKernel, *arguments: object) -> Result:
    found = run_command(None, "--root", kernel.tree.root, *arguments)
    assert found.status == 0, found.stderr
    return found


def rows(text: str) -> list[list[str]]:
    """The columns behind the drawing of each line."""
    return [line.split()[-6:] for line in text.splitlines()]


def addresses(kernel: FakeKernel, *arguments: object) -> list[str]:
    lines = run(kernel, "tree", "-n", "-o", "address", *arguments).stdout.splitlines()
    return [line.split()[-1] for line in lines]


def test_a_drawing(kernel: FakeKernel) -> None:
    lines = run(kernel, "tree").stdout.splitlines()
    assert lines[0].split() == HEADINGS
    width = lines[0].index("GROUP")
    assert [line[:width].rstrip() for line in lines[1:5]] == [
        r"-[0000:00]-+-02.0",
        r"           +-08.0-[01]",
        r"           |  \-00.0",
        r"           +-09.0-[02]",
    ]
    assert rows("\n".join(lines))[1:4] == [
        ["2", "00ff00", "-", "yes", "?", "-"],
        ["5", "060400", "pcieport", "yes", "SV+RR+CR+UF+", "x8@8.0GT/s<x16@16.0GT/s"],
        ["12", "020000", "e1000e", "no", "?", "-"],
    ]
    without = run(kernel, "tree", "-n").stdout.splitlines()
    assert [line.split() for line in without] == [line.split() for line in lines[1:]]
    assert sum(" VF " in line for line in lines) == 2


def test_notes_say_why_states_are_not_known(kernel: FakeKernel) -> None:
    top = f"{home(kernel.tree, PORT)}"
    kernel.tree.put(f"{top}/power_state", "D3cold\n")
    kernel.tree.put(f"{home(kernel.tree, EDU)}/config", b"\xff" * 256)
    silent = run(kernel, "tree", EDU)
    assert silent.stderr.endswith(f"the link is down): {EDU}\n") and " ? " in silent.stdout
    found = run(kernel, "tree", NIC)
    asleep, cut = found.stderr.splitlines()
    assert asleep.startswith("vfioctl: asleep") and asleep.endswith(f": {PORT}")
    assert f"the configuration space of {NIC} could not be read whole" in cut
    (port,) = run(kernel, "tree", NIC, "-J").json["roots"][0]["functions"]
    assert (port["asleep"], port["acs"], port["link"]) == (True, None, None)
    assert port["bridge"]["secondary"] == "0000:01"


def test_one_host_in_every_format(kernel: FakeKernel) -> None:
    document = run(kernel, "tree", "-J").json
    assert yaml.safe_load(run(kernel, "tree", "--format", "yaml").stdout) == document
    found: list[dict[str, Any]] = []

    def collect(functions: list[dict[str, Any]]) -> None:
        for function in functions:
            found.append(function)
            collect(function["virtual_functions"])
            collect(function["bridge"]["functions"] if function["bridge"] else [])

    (root,) = document["roots"]
    assert (root["bus"], root["vmd"]) == ("0000:00", None)
    collect(root["functions"])
    assert [function["address"] for function in found] == addresses(kernel)
    assert sorted(function["address"] for function in found) == sorted(kernel.devices)
    clusters, _ = read_dot(run(kernel, "tree", "--format", "dot").stdout)
    assert {(f"cluster_{f['group']}", f["address"]) for f in found} == {
        (cluster, address) for cluster, nodes in clusters.items() for address in nodes
    }
    virtual = [f for f in found if f["physfn"]]
    assert [f["physfn"] for f in virtual] == [NVME] * 2


def test_filters(kernel: FakeKernel) -> None:
    nvme = ROLES["port_nvme"]
    assert addresses(kernel, NIC) == [PORT, NIC]
    assert addresses(kernel, PORT) == [PORT, NIC]
    assert addresses(kernel, 12, EDU) == [EDU, PORT, NIC]
    assert addresses(kernel, "--group", 14) == [
        ROLES[r] for r in ("port_conv", "conv_bridge", "conv_edu0", "conv_nic")
    ]
    assert addresses(kernel, NVME)[:2] == [nvme, NVME] and len(addresses(kernel, NVME)) == 4
    assert addresses(kernel, "--class", "0x0200", "--driver", "e1000?", PORT) == [PORT, NIC]
    assert addresses(kernel, "--driver", "-", EDU) == [EDU]
    nothing = run(kernel, "tree", "--driver", "none")
    assert (nothing.stdout, nothing.stderr) == ("", "")
    assert run(kernel, "tree", "--driver", "none", "-J").json == {"schema_version": 1, "roots": []}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("0000:99:00.0",), 3, "there is no device"),
        (("99",), 3, "there is no IOMMU group 99"),
        (("--class", "zz"), 2, "is not hexadecimal"),
        (("-o", "nothing"), 2, "there is no column"),
        (("platform/fe000000.dma",), 2, "is not on PCI"),
    ],
)
def test_refusals(kernel: FakeKernel, arguments: tuple[str, ...], status: int, words: str) -> None:
    kernel.tree.device(Device("fe000000.dma", "platform", 1))
    found = run_command(None, "--root", kernel.tree.root, "tree", *arguments)
    assert (found.status, found.stdout) == (status, "")
    assert words in found.stderr


def test_a_domain_of_vmd(kernel: FakeKernel) -> None:
    owner, far = "0000:00:1e.0", "10000:e1:00.0"
    ids = PciIds("010400", "8086", "201d", "8086", "0000")
    for address, below in ((owner, ""), (far, f"/{owner}/pci10000:e1")):
        kernel.tree.homes["pci", "above"] = f"/sys/devices/pci0000:00{below}"
        kernel.tree.device(
            Device(address, "pci", pci=ids, modalias="pci:v00008086d0000201Dsv00008086sd00000000bc01sc04i00"),
            "above",
        )
    assert addresses(kernel, far) == [owner, far] == addresses(kernel, owner)
    lines = run(kernel, "tree", far, "-n", "--format", "plain").stdout.splitlines()
    assert [line.split("  ")[0].split(" -")[0] for line in lines] == [
        "-[0000:00]---1e.0=[10000:e1]",
        "-[10000:e1]---00.0",
    ]
    assert [root["vmd"] for root in run(kernel, "tree", far, "-J").json["roots"]] == [None, owner]


def test_hostile_drivers_say_nothing_to_a_terminal(kernel: FakeKernel) -> None:
    kernel.tree.unbind("pci", NIC, "e1000e")
    kernel.tree.bind("pci", NIC, 'x\x1b[31m "}\n')
    for form in ("table", "plain", "dot", "json", "yaml"):
        text = run(kernel, "tree", "--format", form).stdout
        assert "\x1b" not in text
        assert form in ("json", "yaml", "dot") or len(text.splitlines()) == len(kernel.devices) + 1
    assert read_dot(run(kernel, "tree", "--format", "dot").stdout)


def test_a_terminal_is_wide_enough(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    command = ("--root", kernel.tree.root, "tree")
    plain = run(kernel, "tree").stdout.splitlines()
    shown = on_terminal("--color", "never", *command)
    assert "\x1b" not in shown
    lines = [line for line in shown.splitlines() if not line.startswith("vfioctl:") and line]
    assert [line.rstrip() for line in lines[: len(plain)]] == [
        line if len(line) <= 40 else f"{line[:39]}>" for line in plain
    ]
    assert "\x1b[31m" in on_terminal(*command, "-o", "viable")
    piped = run_command(None, "--color", "always", *command, "--format", "table").stdout
    assert "\x1b[31mno" in piped and ">" not in piped.replace("<x16@16.0GT/s", "").replace("->", "")


def test_names(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    from vfioctl.host import hwdb

    monkeypatch.setattr(
        hwdb.HardwareDatabase,
        "look_up",
        lambda self, modalias: {"ID_MODEL_FROM_DATABASE": f"the {modalias[:4]}"},
    )
    assert run(kernel, "tree", "--names", EDU).stdout.splitlines()[1].endswith("the\\x20pci:")
    assert (
        run(kernel, "tree", "--names", EDU, "--format", "table")
        .stdout.splitlines()[1]
        .rstrip()
        .endswith("the pci:")
    )


def shown(kernel: FakeKernel, subject: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(kernel, "show", subject, "-J").stdout)
    return dict(document.get("device") or document["group"])


def test_states_in_show(kernel: FakeKernel) -> None:
    tree = kernel.tree
    top = home(tree, NIC)
    tree.put(f"{top}/config", space((0x0F, 1, bytes.fromhex("0500 0080")), (0x01, 2, bytes(40)), port=0))
    for severity, text in (
        ("correctable", "RxErr 0\nBadTLP 3\nTOTAL_ERR_COR 3\n"),
        ("nonfatal", "Undefined 0\nTOTAL_ERR_NONFATAL 0\n"),
        ("fatal", "Undefined 0\nTOTAL_ERR_FATAL 0\n"),
    ):
        tree.put(f"{top}/aer_dev_{severity}", text)
    tree.put(f"{top}/reset_method", "flr bus\n")
    tree.put(f"{top}/removable", "removable\n")
    device = shown(kernel, NIC)
    assert device["ats"] == {"present": True, "enabled": True}
    assert device["acs"] == {"present": False, "supported": [], "enabled": []}
    assert device["aer"] == {"present": True, "enabled": ["correctable", "fatal"]}
    assert device["rebar"] == {"present": False, "bars": []}
    assert device["aer_counters"] == {
        "correctable": {"total": 3, "BadTLP": 3},
        "nonfatal": {"total": 0},
        "fatal": {"total": 0},
    }
    assert (device["reset_method"], device["config_size"]) == (["flr", "bus"], 4096)
    assert (device["removable"], device["untrusted"], device["external_facing"]) == ("removable", True, None)
    for name, count in (("cor", 2), ("nonfatal", 0), ("fatal", 1)):
        tree.put(f"{home(tree, PORT)}/aer_rootport_total_err_{name}", f"{count}\n")
    port = shown(kernel, PORT)
    assert port["aer_counters"] == {"received": {"correctable": 2, "nonfatal": 0, "fatal": 1}}
    assert (port["external_facing"], port["untrusted"], port["rcec"]) == (True, False, None)
    assert "ats.enabled=yes\n" in run(kernel, "show", NIC).stdout
    assert run(kernel, "show", NIC, "-P", "acs.present", "--value").stdout == "no\n"


def test_states_that_are_not_known(kernel: FakeKernel) -> None:
    found = run(kernel, "show", EDU)
    assert "acs=-\n" in found.stdout and "could not be read whole" in found.stderr
    assert run(kernel, "show", EDU, "-P", "group").stderr == ""
    one = run(kernel, "show", EDU, "-P", "acs.enabled", "--value")
    assert one.stdout == "-\n" and EDU in one.stderr
    assert shown(kernel, EDU)["untrusted"] is False
    kernel.tree.put(f"{home(kernel.tree, EDU)}/power_state", "D3cold\n")
    assert "asleep" in run(kernel, "show", EDU).stderr
    kernel.tree.device(Device("fe000000.dma", "platform", 1))
    other = run(kernel, "show", "platform/fe000000.dma")
    assert "acs=-\n" in other.stdout and other.stderr == ""


def test_virtual_functions_have_their_physical_functions_pasid(kernel: FakeKernel) -> None:
    tree = kernel.tree
    virtual = next(address for address in kernel.devices if address not in ROLES.values())
    tree.put(f"{home(tree, virtual)}/config", b"\xff" * 4 + space()[4:])
    assert shown(kernel, virtual)["pasid"] is None
    tree.put(f"{home(tree, NVME)}/config", space((0x1B, 1, bytes.fromhex("0014 0100"))))
    assert shown(kernel, virtual)["pasid"] == {"present": True, "enabled": True}
    assert shown(kernel, virtual)["ats"] == {"present": False, "enabled": False}


def test_event_collectors(kernel: FakeKernel) -> None:
    tree = kernel.tree
    tree.put(f"{home(tree, EDU)}/config", space(port=9))
    tree.put(f"{home(tree, PORT)}/config", space(association(1 << 2, 1), port=10))
    assert (shown(kernel, EDU)["rcec"], shown(kernel, EDU)["rcec_endpoints"]) == (PORT, None)
    assert (shown(kernel, PORT)["rcec"], shown(kernel, PORT)["rcec_endpoints"]) == (None, [EDU])


def test_types_of_domains(kernel: FakeKernel) -> None:
    kernel.tree.put("/proc/sys/kernel/osrelease", "7.2.0\n")
    group = shown(kernel, 12)
    lazy, identity, auto = group["type_changes"]
    assert (lazy["type"], lazy["possible"], lazy["cure"]) == ("DMA-FQ", True, None)
    assert (identity["possible"], identity["cure"]) == (False, f"vfioctl unbind --leave-unbound {NIC}")
    assert auto["command"] == "echo auto > /sys/kernel/iommu_groups/12/type"
    assert all(change["possible"] for change in shown(kernel, 2)["type_changes"])
    assert "type_changes.1.type=identity\n" in run(kernel, "show", 12).stdout
