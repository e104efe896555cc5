"""Faults that are planted on real hosts, each found with its evidence and cured by its cure; and hosts without one."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of, modprobe, need_driver, remove_modules
from tests.kernel.testbed.command import Result

Roles = Mapping[str, str]
pytestmark = pytest.mark.deadline(240)
#: What is found in files is found in the same files on both kernels.
ON_ONE = pytest.mark.kernels("7.2")
UNSAFE = Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
RULES = Path("/etc/modprobe.d/planted.conf")


def found(result: Result) -> dict[str, dict[str, Any]]:
    """The findings by their codes; that the status and the verdict are in step with them."""
    assert result.stdout, result.stderr
    document = result.json
    counting = [f for f in document["findings"] if f["severity"] != "info"]
    assert (result.status, document["healthy"]) == ((1, False) if counting else (0, True)), result.stdout
    for finding in counting:
        assert finding["evidence"] and finding["cure"], finding
    return {finding["code"]: finding for finding in document["findings"]}


def verdicts(result: Result) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in result.json["checks"]}


def test_a_bridge_whose_driver_is_in_the_way(vfioctl: Vfioctl, roles: Roles, vfio_pci: Path) -> None:
    """As the machine boots; the first test, for the others are about a host without that."""
    need_driver("shpchp")
    bridge, device = roles["conv_bridge"], roles["conv_edu0"]
    fault = found(vfioctl("doctor", device, "-J"))["bridge-driver"]
    assert (fault["severity"], fault["subject"]) == ("error", bridge)
    assert vfioctl("bind", device).status == 0
    assert found(vfioctl("doctor", "-J"))["bridge-driver"]["severity"] == "error"
    assert vfioctl(*shlex.split(fault["cure"])[1:]).status == 0
    assert "bridge-driver" not in found(vfioctl("doctor", "-J"))
    assert vfioctl("unbind", device, bridge).status == 0
    assert driver_of(bridge) == "shpchp"


@pytest.fixture(scope="module")
def cured(vfioctl: Vfioctl, vfio_pci: Path, roles: Roles) -> Iterator[None]:
    """The standard machine as it boots has one fault, and its cure makes it healthy."""
    modprobe("vfio_iommu_type1")
    bridge = roles["conv_bridge"]
    before = found(vfioctl("doctor", "-J"))
    assert {code: f["subject"] for code, f in before.items()} == {"bridge-driver": bridge}
    assert before["bridge-driver"]["evidence"] == [
        {"file": f"/sys/bus/pci/devices/{bridge}/driver", "value": "shpchp"}
    ]
    assert vfioctl(*shlex.split(before["bridge-driver"]["cure"])[1:]).status == 0
    yield
    assert vfioctl("unbind", bridge).status == 0
    assert driver_of(bridge) == "shpchp"


def test_a_healthy_host(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    result = vfioctl("doctor", "-J")
    assert result.json["findings"] == []
    assert set(verdicts(result).values()) <= {"ok", "unknown"}
    known = ("iommu", "interrupts", "modules", "container-node", "memlock", "direct-regions", "host-drivers")
    assert {verdicts(result)[name] for name in known} == {"ok"}
    quiet = vfioctl("doctor", "-q")
    assert (quiet.status, quiet.stdout) == (0, "")


def test_a_device_that_can_be_assigned(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    """And one that nothing resets."""
    assert found(vfioctl("doctor", roles["nic_a"], "-J")) == {}
    (finding,) = found(vfioctl("doctor", roles["edu"], "-J")).values()
    assert (finding["code"], finding["severity"]) == ("no-reset", "warning")


@ON_ONE
def test_who_is_not_root_sees_as_much(vfioctl: Vfioctl, cured: None) -> None:
    """Of the processes of others less, and it may lock little memory."""
    result = vfioctl("doctor", "-J", user=Vfioctl.unprivileged)
    assert set(found(result)) == {"memlock-too-small"}
    assert verdicts(result)["iommu"] == verdicts(result)["interrupts"] == "ok"


@contextmanager
def planted(path: Path, text: str) -> Iterator[None]:
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


@ON_ONE
def test_unsafe_interrupts(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    with planted(UNSAFE, "Y"):
        fault = found(vfioctl("doctor", "-J"))["unsafe-interrupts"]
        assert fault["evidence"] == [{"file": str(UNSAFE), "value": "Y"}]
        assert found(vfioctl("doctor", roles["nic_a"], "-J")) == {}, "it keeps nothing from being assigned"
        subprocess.run(["sh", "-c", fault["cure"]], check=True)
        assert found(vfioctl("doctor", "-J")) == {}
    with planted(RULES, "options vfio_iommu_type1 allow_unsafe_interrupts=1\n"):
        fault = found(vfioctl("doctor", "-J"))["unsafe-interrupts"]
        assert fault["evidence"][0]["file"] == str(RULES)


@ON_ONE
def test_memory_that_may_not_be_locked(vfioctl: Vfioctl, cured: None) -> None:
    with subprocess.Popen(["sleep", "60"], user=65534, group=65534) as process:
        try:
            subprocess.run(["prlimit", "--pid", str(process.pid), "--memlock=1048576:1048576"], check=True)
            asked = ("doctor", "--pid", process.pid, "--memory", "512M", "-J")
            fault = found(vfioctl(*asked))["memlock-too-small"]
            assert (fault["severity"], fault["subject"]) == ("error", f"process {process.pid}")
            assert fault["evidence"] == [
                {"file": f"/proc/{process.pid}/limits", "value": "Max locked memory 1048576 1048576 bytes"}
            ]
            subprocess.run(["sh", "-c", fault["cure"]], check=True)
            assert found(vfioctl(*asked)) == {}
        finally:
            process.kill()
    limits = Path("/etc/security/limits.d/planted.conf")
    limits.parent.mkdir(parents=True, exist_ok=True)
    with planted(limits, "* hard memlock unlimited\nnobody - memlock 4096\n"):
        fault = found(vfioctl("doctor", "--user", "nobody", "--memory", "1G", "-J"))["memlock-too-small"]
        assert fault["evidence"] == [{"file": str(limits), "value": "nobody - memlock 4096"}]
    assert vfioctl("doctor", "--pid", 4194300).status == 3


@ON_ONE
def test_a_node_that_is_open_to_everybody(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    edu = roles["edu"]
    node = Path(f"/dev/vfio/{group_of(edu)}")
    assert vfioctl("bind", edu).status == 0
    assert found(vfioctl("doctor", "-J")) == {}
    node.chmod(0o666)
    fault = found(vfioctl("doctor", "-J"))["node-world-writable"]
    assert fault["evidence"] == [{"file": str(node), "value": "owner 0:0, mode 0666"}]
    assert vfioctl("permit", edu, "--user", "nobody").status == 0
    assert found(vfioctl("doctor", "-J")) == {}
    Path("/dev/vfio/vfio").chmod(0o600)
    assert set(found(vfioctl("doctor", "-J"))) == {"container-node-closed"}
    Path("/dev/vfio/vfio").chmod(0o666)
    assert vfioctl("unbind", edu).status == 0


@ON_ONE
def test_ids_that_take_a_twin(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    """vfio-pci really takes both: what the finding says is tried."""
    twins = [roles["nic_a"], roles["nic_b"]]
    rules = "softdep e1000e pre: vfio-pci\noptions vfio-pci ids=8086:10d3\n"
    with planted(RULES, rules):
        fault = found(vfioctl("doctor", "-J"))["ids-take-twins"]
        assert fault["evidence"][0] == {"file": str(RULES), "value": "options vfio-pci ids=8086:10d3"}
        assert all(twin in fault["detail"] for twin in twins)
        before = [driver_of(twin) for twin in twins]
        remove_modules("vfio-pci")
        if before == [None, None]:
            modprobe("vfio-pci")
            assert [driver_of(twin) for twin in twins] == ["vfio-pci", "vfio-pci"]
            remove_modules("vfio-pci")
    modprobe("vfio-pci")


@ON_ONE
def test_a_module_that_is_missing(vfioctl: Vfioctl, roles: Roles, cured: None) -> None:
    listing = Path("/lib/modules", Path("/proc/sys/kernel/osrelease").read_text().strip(), "modules.dep")
    kept = [line for line in listing.read_text().splitlines(keepends=True) if "vfio-pci.ko" not in line]
    hidden = Path("/run/modules.dep")
    hidden.write_text("".join(kept))
    remove_modules("vfio-pci")
    subprocess.run(["mount", "--bind", hidden, listing], check=True)
    try:
        for subjects in ((), (roles["nic_a"],)):
            fault = found(vfioctl("doctor", *subjects, "-J"))["module-missing"]
            assert (fault["severity"], fault["subject"]) == ("error", "vfio_pci")
            assert fault["evidence"][0]["file"] == str(listing)
    finally:
        subprocess.run(["umount", listing], check=True)
    with planted(RULES, "install vfio-pci /bin/false\n"):
        assert found(vfioctl("doctor", "-J"))["module-forbidden"]["severity"] == "error"
        assert subprocess.run(["modprobe", "vfio-pci"], check=False).returncode != 0
    modprobe("vfio-pci")
    assert found(vfioctl("doctor", "-J")) == {}


@pytest.mark.machine("no-iommu")
def test_no_iommu(vfioctl: Vfioctl, roles: Roles) -> None:
    faults = found(vfioctl("doctor", "-J"))
    assert set(faults) == {"no-iommu"}
    assert faults["no-iommu"]["evidence"][0]["file"] == "/proc/cmdline"
    assert set(found(vfioctl("doctor", roles["nic_a"], "-J"))) == {"no-iommu"}


@pytest.mark.machine("iommu-off")
def test_an_iommu_that_the_command_line_keeps_off(vfioctl: Vfioctl, roles: Roles) -> None:
    modprobe("vfio-pci", "vfio_iommu_type1")
    for subjects in ((), (roles["nic_a"],)):
        fault = found(vfioctl("doctor", *subjects, "-J"))["no-iommu"]
        assert (fault["severity"], "DMAR" in fault["detail"]) == ("error", True)
        assert "intel_iommu=off" in fault["evidence"][0]["value"]
        assert fault["cure"] == "take intel_iommu=off off the kernel command line and boot again"
    empty = vfioctl("list-groups", "-J")
    assert (empty.json["groups"], fault["cure"] in empty.stderr) == ([], True)
    (would,) = vfioctl("explain", roles["mf1"], "-J").json["explanations"]
    assert (would["group"], set(would["devices"])) == (None, {roles["mf0"], roles["mf1"]})


@pytest.mark.machine("no-intremap")
def test_interrupts_that_are_not_isolated(vfioctl: Vfioctl, vfio_pci: Path, roles: Roles) -> None:
    for subjects in ((), (roles["nic_a"],)):
        fault = found(vfioctl("doctor", *subjects, "-J"))["interrupts-not-isolated"]
        assert fault["severity"] == "error"
    with planted(UNSAFE, "Y"):
        faults = found(vfioctl("doctor", "-J"))
        assert faults["unsafe-interrupts"]["severity"] == "warning"
        assert "interrupts-not-isolated" not in faults


@pytest.mark.machine("rmrr")
def test_a_region_that_firmware_wants_mapped(vfioctl: Vfioctl, roles: Roles) -> None:
    edu = roles["edu"]
    fault = found(vfioctl("doctor", "-J"))["direct-region"]
    assert (fault["severity"], fault["subject"]) == ("warning", str(group_of(edu)))
    assert [e["value"].split()[-1] for e in fault["evidence"]] == ["direct"]
    assert found(vfioctl("doctor", edu, "-J"))["direct-region"]["severity"] == "error"
    assert found(vfioctl("doctor", roles["nic_a"], "-J")) == {}


@pytest.mark.machine("smmuv3")
def test_arm64(vfioctl: Vfioctl, roles: Roles) -> None:
    assert found(vfioctl("doctor", "-J")) == {}
    assert found(vfioctl("doctor", roles["nic_a"], "-J")) == {}


@pytest.mark.machine("gicv2")
def test_arm64_without_its(vfioctl: Vfioctl) -> None:
    assert set(found(vfioctl("doctor", "-J"))) == {"interrupts-not-isolated"}


@pytest.mark.machine("pseries")
def test_ppc64le(vfioctl: Vfioctl, roles: Roles) -> None:
    assert found(vfioctl("doctor", "-J")) == {}


@pytest.mark.machine("zpci")
def test_s390x(vfioctl: Vfioctl, roles: Roles) -> None:
    assert found(vfioctl("doctor", "-J")) == {}
