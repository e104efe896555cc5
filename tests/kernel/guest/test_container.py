"""Containers that stay open between commands, through the command line, on every backend that this kernel has."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of
from tests.kernel.testbed.command import Result
from tests.kernel.testbed.qmp import Qmp

MIB = 1 << 20
NOBODY = 65534
TOKEN = "00112233-4455-6677-8899-aabbccddeeff"
ENABLE_SRIOV = Path("/sys/module/vfio_pci/parameters/enable_sriov")
ON_ALL = pytest.mark.kernels("6.1", "7.2", "7.2-iommufd")


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, int]]:
    """The groups of two devices on vfio-pci."""
    assert vfioctl("bind", roles["edu"], roles["nic_a"]).status == 0
    yield {role: group_of(roles[role]) for role in ("edu", "nic_a")}
    assert vfioctl("unbind", roles["edu"], roles["nic_a"]).status == 0


@pytest.fixture
def work(vfioctl: Vfioctl, bound: Mapping[str, int]) -> Iterator[str]:
    """An open container with the first of them."""
    opened = vfioctl("container", "open", "work", bound["edu"])
    assert opened.status == 0, opened.stderr
    yield "work"
    vfioctl("container", "close", "--all")


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@ON_ALL
def test_open_show_close(vfioctl: Vfioctl, bound: Mapping[str, int], kernel: str) -> None:
    first = vfioctl("container", "open", "work", bound["edu"], "-J").json["containers"]
    (found,) = first
    wanted = "iommufd" if os.path.exists("/dev/iommu") else "type1v2"
    assert (found["name"], found["backend"], found["groups"], found["changed"]) == (
        "work",
        wanted,
        [bound["edu"]],
        True,
    )
    again = vfioctl("container", "open", "work", bound["edu"], "-J")
    assert again.json["containers"] == [{**found, "changed": False}]
    other = vfioctl("container", "open", "work", bound["nic_a"], "-J")
    assert (other.status, other.json_error["code"]) == (6, "container-exists")
    shown = vfioctl("container", "show", "work", "-J").json
    assert shown["page_sizes"][0] == 4096
    assert not any(r["start"] <= 0xFEE00000 <= r["end"] for r in shown["iova_ranges"])
    assert [row["name"] for row in vfioctl("container", "list", "-J").json["containers"]] == ["work"]
    assert os.stat("/run/vfioctl/containers").st_mode & 0o777 == 0o700
    assert vfioctl("container", "close", "work").status == 0
    assert not os.path.exists(f"/proc/{found['pid']}")
    gone = vfioctl("container", "show", "work", "-J")
    assert (gone.status, gone.json_error["code"]) == (3, "no-such-container")
    assert vfioctl("container", "list", "-J").json == {"schema_version": 1, "containers": []}


@ON_ALL
def test_groups_come_and_go(vfioctl: Vfioctl, work: str, bound: Mapping[str, int]) -> None:
    assert vfioctl("container", "add", work, bound["nic_a"]).status == 0
    assert vfioctl("container", "add", work, bound["nic_a"], bound["edu"]).status == 0
    assert vfioctl("map", "-c", work, "--size", "1M").status == 0
    assert vfioctl("container", "remove", work, bound["edu"]).status == 0
    shown = vfioctl("container", "show", work, "-J").json
    assert (shown["groups"], len(shown["mappings"])) == ([bound["nic_a"]], 1)
    assert vfioctl("container", "remove", work, bound["nic_a"]).status == 0
    shown = vfioctl("container", "show", work, "-J").json
    assert (shown["groups"], shown["mappings"], shown["iova_ranges"]) == ([], [], None)
    missing = vfioctl("container", "remove", work, bound["nic_a"], "-J")
    assert missing.status in (2, 3)
    assert vfioctl("container", "add", work, bound["edu"]).status == 0


def test_the_group_is_held_and_by_whom_is_said(
    vfioctl: Vfioctl, work: str, roles: Mapping[str, str], bound: Mapping[str, int]
) -> None:
    pid = vfioctl("container", "show", work, "-J").json["pid"]
    taken = vfioctl("map", bound["edu"], "-J")
    assert (taken.status, taken.json_error["code"]) == (6, "group-busy")
    assert str(pid) in taken.stderr
    refused = vfioctl("unbind", roles["edu"], "-J")
    assert refused.status == 6
    assert [holder["pid"] for holder in refused.json_error["holders"]] == [pid]
    late = vfioctl("wait", roles["edu"], "--released", "--timeout", 0, "-J")
    assert late.status == 124 and f"vfioctl:{work}"[:15] in late.json_error["message"]
    assert "vfioctl container close" in late.json_error["hint"]
    assert driver_of(roles["edu"]) == "vfio-pci"


@ON_ALL
def test_exec_hands_the_descriptors_over(vfioctl: Vfioctl, work: str, roles: Mapping[str, str]) -> None:
    out = Path("/dev/shm/handed-over")
    out.write_text("")
    out.chmod(0o666)
    script = (
        f'(id -u; ulimit -l; echo "$LISTEN_FDS $LISTEN_FDNAMES"; [ "$LISTEN_PID" = $$ ] && echo mine; '
        f"for fd in 3 4 5 6; do readlink /proc/$$/fd/$fd || echo none; done) > {out}; exit 7"
    )
    done = vfioctl(
        "container", "exec", work, "--user", "nobody", "--device", roles["edu"], "--", "sh", "-c", script
    )
    assert done.status == 7, done.stderr
    uid, memlock, listen, mine, *links = out.read_text().splitlines()
    assert (uid, memlock, mine) == (str(NOBODY), "unlimited", "mine")
    number, names = listen.split()
    device = f"device-{roles['edu'].replace(':', '_')}"
    if os.path.exists("/dev/iommu"):
        assert (number, names) == ("2", f"iommufd:{device}")
        assert links[0] == "/dev/iommu" and links[1].startswith("/dev/vfio/devices/vfio")
    else:
        assert (number, names) == ("3", f"container:group-{group_of(roles['edu'])}:{device}")
        assert links[:3] == [
            "/dev/vfio/vfio",
            f"/dev/vfio/{group_of(roles['edu'])}",
            "anon_inode:[vfio-device]",
        ]
    assert links[int(number) :] == ["none"] * (4 - int(number))
    absent = vfioctl("container", "exec", work, "--user", "nobody", "--", "no-such-program")
    assert absent.status == 127
    another = vfioctl("container", "exec", work, "--user", "root", "--", "true", user=Vfioctl.unprivileged)
    assert (another.status, "only root" in another.stderr) == (4, True), another.stderr


@ON_ALL
def test_the_host_wants_the_device_back(
    vfioctl: Vfioctl, work: str, roles: Mapping[str, str], bound: Mapping[str, int]
) -> None:
    """An unbind waits for the keeper, which says so, and goes on when the group is let go."""
    opened = vfioctl("container", "exec", work, "--user", "root", "--device", roles["edu"], "--", "true")
    assert opened.status == 0, opened.stderr
    unbind = os.fork()
    if unbind == 0:
        Path(f"/sys/bus/pci/devices/{roles['edu']}/driver/unbind").write_text(roles["edu"])
        os._exit(0)
    wait_for(lambda: vfioctl("container", "show", work, "-J").json["devices"][0]["wanted_back"])
    assert f"{roles['edu']} is wanted back by the host" in vfioctl("container", "list").stderr
    assert os.waitpid(unbind, os.WNOHANG) == (0, 0)
    assert vfioctl("container", "remove", work, bound["edu"]).status == 0
    assert os.waitpid(unbind, 0)[1] == 0
    assert driver_of(roles["edu"]) is None
    assert vfioctl("bind", roles["edu"]).status == 0


@ON_ALL
def test_released_on_request(vfioctl: Vfioctl, roles: Mapping[str, str], bound: Mapping[str, int]) -> None:
    opened = vfioctl("container", "open", "free", bound["nic_a"], "--release-on-request")
    assert opened.status == 0, opened.stderr
    assert (
        vfioctl(
            "container", "exec", "free", "--user", "root", "--device", roles["nic_a"], "--", "true"
        ).status
        == 0
    )
    Path(f"/sys/bus/pci/devices/{roles['nic_a']}/driver/unbind").write_text(roles["nic_a"])  # does not hang
    assert driver_of(roles["nic_a"]) is None
    assert vfioctl("container", "show", "free", "-J").json["groups"] == []
    assert vfioctl("container", "close", "free").status == 0
    assert vfioctl("bind", roles["nic_a"]).status == 0


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_device_is_unplugged(vfioctl: Vfioctl, qmp: Qmp, roles: Mapping[str, str], by_itself: bool) -> None:
    """The keeper survives it, says that it is wanted back, and the device's removal waits for nobody once it is let go:
    by itself, or by hand."""
    qmp.device_add("edu", "visitor", "hotplug_port")
    bus = int(Path(f"/sys/bus/pci/devices/{roles['hotplug_port']}/secondary_bus_number").read_text())
    address = f"0000:{bus:02x}:00.0"
    wait_for(lambda: os.path.exists(f"/sys/bus/pci/devices/{address}/iommu_group"))
    assert vfioctl("bind", address).status == 0
    group = group_of(address)
    released = ("--release-on-request",) if by_itself else ()
    assert vfioctl("container", "open", "plugged", group, *released).status == 0
    assert (
        vfioctl("container", "exec", "plugged", "--user", "root", "--device", address, "--", "true").status
        == 0
    )
    qmp.device_del("visitor")
    if not by_itself:
        wait_for(lambda: "is wanted back by the host" in vfioctl("container", "list").stderr)
        assert os.path.exists(f"/sys/bus/pci/devices/{address}")
        assert vfioctl("container", "remove", "plugged", group).status == 0
    wait_for(lambda: not os.path.exists(f"/sys/bus/pci/devices/{address}"))
    shown = vfioctl("container", "show", "plugged", "-J")
    assert (shown.status, shown.json["groups"], shown.json["mappings"]) == (0, [], [])
    assert vfioctl("container", "close", "plugged").status == 0
    qmp.wait_event("DEVICE_DELETED")


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_what_ends_the_keeper_lets_everything_go(
    vfioctl: Vfioctl, bound: Mapping[str, int], name: signal.Signals
) -> None:
    pid = vfioctl("container", "open", "end", bound["edu"], "-J").json["containers"][0]["pid"]
    assert vfioctl("map", "-c", "end", "--size", "8M").status == 0
    os.kill(pid, name)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert vfioctl("container", "list", "-J").json["containers"] == []
    assert vfioctl("map", bound["edu"]).status == 0
    assert vfioctl("container", "open", "end", bound["edu"]).status == 0  # the name is free again
    assert vfioctl("container", "close", "end").status == 0


def test_a_user_without_privileges(vfioctl: Vfioctl, bound: Mapping[str, int], tmp_path: Path) -> None:
    """Has containers of their own, within their limit of locked memory, that other users do not see."""
    runtime = Path("/run/user-nobody")
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.chown(runtime, NOBODY, NOBODY)
    assert vfioctl("permit", bound["edu"], "--user", "nobody").status == 0
    setting: dict[str, Any] = {
        "user": Vfioctl.unprivileged,
        "env": {"XDG_RUNTIME_DIR": str(runtime)},
        "memlock": 8 * MIB,
    }
    try:
        nowhere = vfioctl("container", "open", "mine", bound["edu"], user=Vfioctl.unprivileged)
        assert nowhere.status == 2 and "XDG_RUNTIME_DIR" in nowhere.stderr
        opened = vfioctl("container", "open", "mine", bound["edu"], "-J", **setting)
        assert opened.status == 0, opened.stderr
        assert vfioctl("map", "-c", "mine", "--size", "4M", **setting).status == 0
        too_much = vfioctl("map", "-c", "mine", "--size", "8M", "-J", **setting)
        assert (too_much.status, too_much.json_error["code"]) == (7, "memlock")
        shown = vfioctl("container", "show", "mine", "-J", **setting).json
        assert (shown["locked"], shown["memlock"]) == (4 * MIB, 8 * MIB)
        assert vfioctl("container", "list", "-J").json["containers"] == []
        assert vfioctl("container", "close", "mine", **setting).status == 0
    finally:
        assert vfioctl("revoke", bound["edu"]).status == 0


@pytest.mark.deadline(300)
@pytest.mark.kernels("6.1", "7.2", "7.2-iommufd", "6.12-iommufd")
def test_a_virtual_function_takes_the_token_of_its_physical_function(
    vfioctl: Vfioctl, vfio_pci: Path, roles: Mapping[str, str], machine: str
) -> None:
    function = roles["nvme"]
    # Up to 6.16 a device's own node asks for no token; its group's does.
    backend = ("--backend", "type1v2") if machine == "6.12-iommufd" else ()

    def reading(address: str, *token: str) -> Result:
        opened = vfioctl("container", "open", "vf", address, *backend, *token, "-J")
        if opened.status != 0:
            return opened
        found = vfioctl("region", "read", address, "config", "COMMAND", "-J")
        assert vfioctl("container", "close", "vf").status == 0
        return found

    ENABLE_SRIOV.write_text("Y")
    assert vfioctl("bind", function).status == 0
    try:
        (PCI / function / "sriov_drivers_autoprobe").write_text("0")
        opened = vfioctl("container", "open", "pf", function, "--vf-token", TOKEN)
        assert opened.status == 0, opened.stderr
        # Opening it resets it, and with it virtual functions that are there already.
        assert vfioctl("region", "read", function, "config", "VENDOR_ID").status == 0
        (PCI / function / "sriov_numvfs").write_text("1")
        virtual = os.readlink(PCI / function / "virtfn0").rpartition("/")[2]
        assert vfioctl("bind", virtual).status == 0
        for token in ((), ("--vf-token", TOKEN.replace("0", "f"))):
            refused = reading(virtual, *token)
            assert (refused.status, refused.json_error["code"]) == (4, "permission"), refused
            assert "--vf-token UUID" in refused.json_error["hint"]
        found = reading(virtual, "--vf-token", TOKEN)
        assert found.status == 0, found.stderr
    finally:
        vfioctl("container", "close", "--all")
        (PCI / function / "sriov_numvfs").write_text("0")
        (PCI / function / "sriov_drivers_autoprobe").write_text("1")
        ENABLE_SRIOV.write_text("N")
        assert vfioctl("unbind", function).status == 0


def test_systemd_is_told(vfioctl: Vfioctl, bound: Mapping[str, int], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        running = vfioctl.start(
            "container",
            "open",
            "unit",
            bound["edu"],
            "--foreground",
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        assert manager.recv(100) == b"READY=1"
    assert [row["name"] for row in vfioctl("container", "list", "-J").json["containers"]] == ["unit"]
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait(30).status == 0
    assert vfioctl("container", "list", "-J").json["containers"] == []
