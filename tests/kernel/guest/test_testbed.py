"""The test-bed itself: the machine is what machine.py says, and its tools work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.testbed.kernel_log import KernelLog
from tests.kernel.testbed.qmp import Qmp
from tests.kernel.testbed.udevd import Udevd

Roles = Mapping[str, str]

DEVICES = Path("/sys/bus/pci/devices")

IDS = {
    "edu": "1234:11e8",
    "vga": "1234:1111",
    "disk": "1af4:1001",
    "nic_a": "8086:10d3",
    "nic_b": "8086:10d3",
    "conv_bridge": "1b36:000e",
    "conv_edu0": "1234:11e8",
    "conv_edu1": "1234:11e8",
    "conv_nic": "8086:100e",
    "plain_bridge": "1b36:0001",
    "plain_edu": "1234:11e8",
    "plain_nic": "8086:100e",
    "mf0": "1234:11e8",
    "mf1": "8086:100f",
    "switch_up": "104c:8232",
    "switch_down0": "104c:8233",
    "switch_down1": "104c:8233",
    "xhci": "1b36:000d",
    "nvme": "1b36:0010",
    "hotplug_port": "1b36:000c",
}

GROUPS = [
    {"edu"},
    {"vga"},
    {"disk"},
    {"nic_a"},
    {"nic_b"},
    {"conv_bridge", "conv_edu0", "conv_edu1", "conv_nic"},
    {"plain_bridge", "plain_edu", "plain_nic"},
    {"mf0", "mf1"},
    {"switch_up"},
    {"switch_down0", "xhci"},
    {"switch_down1"},
    {"nvme"},
    {"hotplug_port"},
    {"port_a"},
    {"port_b"},
    {"port_conv"},
    {"port_mf"},
    {"port_nvme"},
    {"port_switch"},
]


def group_of(address: str) -> int:
    return int((DEVICES / address / "iommu_group").readlink().name)


def driver_of(address: str) -> str | None:
    link = DEVICES / address / "driver"
    return link.readlink().name if link.is_symlink() else None


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so after {seconds} s"
        time.sleep(0.1)


def test_the_kernel_is_of_the_series(machine: str, kernel: str) -> None:
    assert kernel.startswith(machine.split("-")[0])


def test_every_role_has_its_device(roles: Roles) -> None:
    ids = {}
    for role in IDS:
        device = DEVICES / roles[role]
        parts = [(device / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device")]
        ids[role] = ":".join(parts)
    assert ids == IDS


def test_the_roles_are_there_for_scripts(roles: Roles) -> None:
    assert roles["edu"] in Path("/run/testbed.json").read_text()


def test_groups_are_those_of_the_topology(roles: Roles) -> None:
    names = {address: role for role, address in roles.items()}
    for expected in GROUPS:
        group = group_of(roles[min(expected)])
        members = os.listdir(f"/sys/kernel/iommu_groups/{group}/devices")
        assert {names.get(address, address) for address in members} == expected


def test_devices_are_translated(roles: Roles) -> None:
    assert Path(f"/sys/kernel/iommu_groups/{group_of(roles['edu'])}/type").read_text().strip() in (
        "DMA",
        "DMA-FQ",
    )


def test_the_hot_plug_driver_takes_one_conventional_bridge(roles: Roles) -> None:
    os.spawnlp(os.P_WAIT, "modprobe", "modprobe", "shpchp")
    assert driver_of(roles["conv_bridge"]) == "shpchp"
    assert driver_of(roles["plain_bridge"]) is None


def test_edu_has_its_registers(roles: Roles) -> None:
    start, end, _ = (DEVICES / roles["edu"] / "resource").read_text().splitlines()[0].split()
    assert int(end, 16) - int(start, 16) + 1 == 1 << 20


def test_nvme_offers_virtual_functions(roles: Roles) -> None:
    assert (DEVICES / roles["nvme"] / "sriov_totalvfs").read_text().strip() == "4"


def test_vfio_pci_loads(vfio_pci: Path) -> None:
    assert (vfio_pci / "vfio").is_char_device()


def test_the_disk_is_mounted() -> None:
    assert os.path.ismount("/mnt/disk")


def test_the_monitor_answers(qmp: Qmp) -> None:
    assert qmp.execute("query-status")["status"] == "running"


def test_hot_plug_and_unplug(qmp: Qmp, roles: Roles) -> None:
    below = DEVICES / roles["hotplug_port"]
    qmp.device_add("edu", "plugged", "hotplug_port")
    wait_until(lambda: list(below.glob("0000:*:00.0")))
    (device,) = below.glob("0000:*:00.0")
    wait_until((device / "iommu_group").exists)
    qmp.device_del("plugged")
    assert qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "plugged"
    assert not device.exists()


def test_the_kernel_log_since_a_mark(kernel_log: KernelLog) -> None:
    Path("/dev/kmsg").write_text("first\n")
    kernel_log.mark()
    Path("/dev/kmsg").write_text("second\n")
    assert kernel_log.read() == ["second"]


def test_udevd_runs_rules(udevd: Udevd, roles: Roles, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    rule = f'ACTION=="change", KERNEL=="{roles["edu"]}", RUN+="/bin/touch {mark}"\n'
    udevd.add_rules({"99-testbed.rules": rule})
    udevd.trigger("--action=change", "--subsystem-match=pci", f"--sysname-match={roles['edu']}")
    assert mark.exists()


# The runner of commands, with a stand-in for vfioctl.


def stand_in(arguments: list[str]) -> int | None:
    if arguments[0] == "streams":
        print("to stdout", sys.stdin.readline(), sys.stdout.isatty(), end="")
        print("to stderr", file=sys.stderr)
        sys.exit(3)
    if arguments[0] == "who":
        print(
            os.getuid(),
            os.getgid(),
            os.getgroups(),
            len(os.listdir("/proc/self/fd")),
            os.environ.get("X"),
            end="",
        )
        return 0
    if arguments[0] == "hang":
        time.sleep(1000)
    if arguments[0] == "crash":
        raise ValueError("crash")
    return None


@pytest.fixture
def command() -> Vfioctl:
    return Vfioctl(stand_in)


def test_command_streams_and_status(command: Vfioctl) -> None:
    result = command("streams", stdin="line")
    assert (result.status, result.stdout, result.stderr) == (3, "to stdout line False", "to stderr\n")


def test_command_on_a_terminal(command: Vfioctl) -> None:
    result = command("streams", stdin="line\n", tty=True)
    assert result.status == 3
    assert result.stderr == ""
    for text in ("to stdout line\n", " True", "to stderr\n"):
        assert text in result.stdout


def test_command_as_another_user(command: Vfioctl) -> None:
    result = command("who", user=command.unprivileged, env={"X": "1"}, memlock=65536)
    # Its three streams and the listing.
    assert (result.status, result.stdout) == (0, "65534 65534 [] 4 1")


def test_command_that_raises(command: Vfioctl) -> None:
    result = command("crash")
    assert result.status == 1
    assert result.stderr.endswith("ValueError: crash\n")


def test_command_that_hangs_is_a_failure(command: Vfioctl) -> None:
    with pytest.raises(AssertionError, match=r"did not end in 0\.5 s"):
        command("hang", deadline=0.5)


def test_command_that_is_killed(command: Vfioctl) -> None:
    running = command.start("hang")
    assert running.alive()
    running.kill()
    assert running.wait().status == -9


def test_command_as_a_real_process(vfioctl: Vfioctl) -> None:
    assert vfioctl("--version", real=True).status == vfioctl("--version").status
