"""vfioctl doctor on trees: what it prints, and by which status it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.kernel import FakeKernel
from tests.fakes.topology import ROLES, boot
from tests.fakes.uses import A, Host

RELEASE = "6.1.0-1-amd64"
BRIDGE, NIC, EDU = ROLES["conv_bridge"], ROLES["nic_a"], ROLES["edu"]


def doctor(root: str, *arguments: object) -> Result:
    return run_command(None, "--root", root, "doctor", *arguments)


def codes(result: Result) -> set[str]:
    return {finding["code"] for finding in result.json["findings"]}


def install(tree: Any, *missing: str) -> None:
    """The modules of VFIO on the disk, as depmod lists them."""
    names = [name for name in ("vfio", "vfio-pci", "vfio_iommu_type1") if name not in missing]
    tree.put(
        f"/lib/modules/{RELEASE}/modules.dep", "".join(f"kernel/drivers/vfio/{n}.ko.xz:\n" for n in names)
    )


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    """The standard topology with everything that VFIO needs; shpchp has its bridge."""
    kernel = boot(str(tmp_path))
    install(kernel.tree)
    for address in (NIC, EDU):
        kernel.tree.node(f"{kernel.tree.homes['pci', address]}/reset", 0o200)
    return kernel


def test_one_finding_and_its_cure(kernel: FakeKernel) -> None:
    root = kernel.tree.root
    result = doctor(root, "-J")
    assert result.status == 1
    document = result.json
    assert (document["schema_version"], document["healthy"]) == (1, False)
    assert document["findings"] == [
        {
            "code": "bridge-driver",
            "severity": "warning",
            "subject": BRIDGE,
            "detail": f"group 14 is not viable while shpchp has {BRIDGE}: the host driver shpchp owns its DMA",
            "evidence": [{"file": f"/sys/bus/pci/devices/{BRIDGE}/driver", "value": "shpchp"}],
            "cure": f"vfioctl unbind --leave-unbound {BRIDGE}",
        }
    ]
    kernel.tree.unbind("pci", BRIDGE, "shpchp")
    healthy = doctor(root, "-J")
    assert (healthy.status, healthy.json["healthy"], healthy.json["findings"]) == (0, True, [])
    checks = {check["name"]: check for check in healthy.json["checks"]}
    assert checks["iommu"] == {
        "name": "iommu",
        "subject": None,
        "verdict": "ok",
        "detail": "firmware tables: none; kernel: dmar0; 20 groups",
    }
    assert checks["memlock"]["verdict"] == checks["lockdown"]["verdict"] == "unknown"


def test_quiet(kernel: FakeKernel) -> None:
    assert doctor(kernel.tree.root, "-q") == Result(1, "", "")
    assert doctor(kernel.tree.root, "-q", NIC) == Result(0, "", "")


def test_rows(kernel: FakeKernel) -> None:
    result = doctor(kernel.tree.root, "-o", "severity,code,subject", "-n")
    assert result.stdout == f"warning bridge-driver {BRIDGE}\n"
    assert result.stderr == "vfioctl: could not be checked: memlock, lockdown, secure-boot (--all says why)\n"
    rows = doctor(kernel.tree.root, "--all", "-o", "severity,code", "-n").stdout.splitlines()
    assert rows[0] == "warning bridge-driver" and "ok iommu" in rows and "unknown lockdown" in rows


def test_a_tree_without_anything(tmp_path: Path) -> None:
    """A directory that is no host at all."""
    result = doctor(str(tmp_path), "-J")
    assert result.status == 1
    assert codes(result) == {"no-iommu"}
    assert "modules" in {check["name"] for check in result.json["checks"] if check["verdict"] == "unknown"}


class TestNarrowed:
    def test_a_device_that_can_be_assigned(self, kernel: FakeKernel) -> None:
        assert doctor(kernel.tree.root, NIC, "-J").json["findings"] == []

    def test_a_device_behind_the_bridge(self, kernel: FakeKernel) -> None:
        result = doctor(kernel.tree.root, ROLES["conv_edu0"], "-J")
        severities = {f["code"]: f["severity"] for f in result.json["findings"]}
        assert severities == {"bridge-driver": "error", "host-driver": "error", "no-reset": "warning"}

    def test_a_group(self, kernel: FakeKernel) -> None:
        result = doctor(kernel.tree.root, "14", "-J")
        assert codes(result) == {"bridge-driver", "no-reset"}
        assert doctor(kernel.tree.root, "12", "-J").json["findings"] == []

    def test_a_bridge(self, kernel: FakeKernel) -> None:
        assert {"bridge"} <= codes(doctor(kernel.tree.root, ROLES["port_a"], "-J"))

    def test_what_the_host_uses_it_for(self, tmp_path: Path) -> None:
        host = Host(str(tmp_path))
        host.put("/proc/sys/kernel/osrelease", f"{RELEASE}\n")
        install(host)
        host.bind("pci", A, "ahci")
        host.disk("sda", "8:0", A)
        host.mount("/dev/sda", "/", number="8:0")
        finding = next(f for f in doctor(host.root, A, "-J").json["findings"] if f["code"] == "root-disk")
        assert (finding["severity"], finding["detail"]) == ("warning", "sda is mounted on /")

    def test_a_driver_that_is_made_for_it(self, kernel: FakeKernel) -> None:
        kernel.tree.append(
            f"/lib/modules/{RELEASE}/modules.alias",
            "alias vfio_pci:v00008086d000010D3sv*sd*bc*sc*i* nice_vfio_pci\n",
        )
        result = doctor(kernel.tree.root, NIC, "-J")
        assert (result.status, codes(result)) == (0, {"variant-driver"})

    @pytest.mark.parametrize(("name", "status"), [("0000:ff:00.0", 3), ("99", 3), ("../x", 2)])
    def test_what_is_not_there(self, kernel: FakeKernel, name: str, status: int) -> None:
        result = doctor(kernel.tree.root, name, "-J")
        assert (result.status, result.stdout) == (status, "")


class TestMemory:
    @pytest.fixture
    def root(self, kernel: FakeKernel) -> str:
        tree = kernel.tree
        tree.put("/etc/passwd", "alice:x:1000:1000::/:/bin/sh\n")
        tree.put("/etc/security/limits.conf", "* soft memlock 65536\n")
        tree.put("/etc/systemd/system/vm.service", "[Service]\nUser=alice\nLimitMEMLOCK=64M\n")
        tree.put("/proc/7/limits", "Max locked memory 67108864 67108864 bytes\n")
        tree.put("/proc/7/status", "Uid:\t1000\t1000\t1000\t1000\nVmLck:\t0 kB\nCapEff:\t0\n")
        return tree.root

    @pytest.mark.parametrize(
        ("whose", "path"),
        [
            (("--user", "alice"), "/etc/security/limits.conf"),
            (("--user", "1000"), "/etc/security/limits.conf"),
            (("--pid", "7"), "/proc/7/limits"),
            (("--unit", "vm"), "/etc/systemd/system/vm.service"),
        ],
    )
    def test_of_whom(self, root: str, whose: tuple[str, ...], path: str) -> None:
        assert codes(doctor(root, NIC, *whose, "-J")) == set(), "64M are enough where nobody asks for more"
        result = doctor(root, NIC, *whose, "--memory", "65M", "-J")
        (finding,) = result.json["findings"]
        assert (result.status, finding["code"], finding["severity"]) == (1, "memlock-too-small", "error")
        assert finding["evidence"][0]["file"] == path

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (("--user", "bob"), 3),
            (("--pid", "8"), 3),
            (("--unit", "other"), 3),
            (("--unit", "../vm.service"), 2),
            (("--pid", "0"), 2),
            (("--user", "alice", "--pid", "7"), 2),
            (("--memory", "much"), 2),
        ],
    )
    def test_what_cannot_be_asked(self, root: str, arguments: tuple[str, ...], status: int) -> None:
        result = doctor(root, *arguments, "-J")
        assert (result.status, result.stdout) == (status, ""), result.stderr


def test_the_same_on_a_snapshot(kernel: FakeKernel, tmp_path: Path) -> None:
    tree = kernel.tree
    install(tree, "vfio-pci")
    for path, text in (
        ("/proc/sys/kernel/tainted", "64\n"),
        ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n"),
        ("/sys/module/vfio/initstate", "live\n"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1\n"),
        ("/etc/modprobe.d/x.conf", "options vfio-pci \\\n  ids=8086:10d3\n"),
        (f"/boot/config-{RELEASE}", "CONFIG_LOCALVERSION=1\n# CONFIG_VFIO_PCI is not set\n"),
    ):
        tree.put(path, text)
    before = doctor(tree.root, "-J")
    assert codes(before) >= {
        "ids-take-twins",
        "lockdown",
        "module-missing",
        "taint-user",
        "unsafe-interrupts",
    }
    for options in ((), ("--no-redact",)):
        target = tmp_path / "s.tar.gz"
        taken = run_command(None, "--root", tree.root, "snapshot", "--overwrite", "-o", target, *options)
        assert taken.status == 0, taken.stderr
        for subjects in ((), (NIC,), (ROLES["conv_edu0"],)):
            assert doctor(str(target), *subjects, "-J") == doctor(tree.root, *subjects, "-J")


def test_hostile_files_reach_no_terminal(kernel: FakeKernel) -> None:
    kernel.tree.put("/proc/cmdline", "pcie_acs_override=\x1b[2J\n")
    kernel.tree.put("/etc/modprobe.d/x.conf", b"options vfio-pci ids=\x1b]0;x\x07\xff\n")
    result = doctor(kernel.tree.root, "-o", "code,subject,detail,evidence,cure")
    assert "ids-malformed" in result.stdout and "acs-override" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr and "\x07" not in result.stdout
