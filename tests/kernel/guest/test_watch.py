"""``vfioctl watch`` and ``vfioctl wait`` on a real kernel."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, give, group_of, need_driver, take_back
from tests.kernel.guest.test_holders import device_alone, open_node, process
from tests.kernel.guest.test_host_driver import wait_for
from tests.kernel.guest.watched import SECONDS, listening, watch
from tests.kernel.testbed.command import Running
from tests.kernel.testbed.qmp import Qmp
from tests.kernel.testbed.udevd import Udevd
from vfioctl.host import vfio

NOBODY = 65534

pytestmark = [pytest.mark.deadline(240), pytest.mark.kernels("7.2")]


@pytest.fixture
def edu(roles: Mapping[str, str], vfio_pci: Path) -> Iterator[str]:
    """A device without a driver."""
    address = roles["edu"]
    take_back(address)
    yield address
    take_back(address)


def test_bind_permit_unbind(vfioctl: Vfioctl, edu: str) -> None:
    """Seen by an unprivileged user, at once: the rescans that nothing asks for are a minute away."""
    group = group_of(edu)
    node = {"path": f"/dev/vfio/{group}", "uid": 0, "gid": 0, "mode": "0600"}
    with watch(vfioctl, edu, "--interval", 60, user=vfioctl.unprivileged) as seen:
        assert vfioctl("bind", edu).status == 0
        bound = seen.find("bound", address=edu, group=group, before=None, after="vfio-pci", bus="pci")
        assert abs(bound["time"] - time.time()) < 30 and bound["initial"] is False
        seen.find("override-changed", address=edu, before=None, after="vfio-pci")
        assert seen.find("node-added", group=group, address=None)["after"] == node
        if Path("/dev/vfio/devices").is_dir():
            assert seen.find("node-added", address=edu)["after"]["path"].startswith("/dev/vfio/devices/vfio")
        assert vfioctl("unbind", edu).status == 0
        assert seen.find("node-removed", address=None)["before"] == node
        seen.find("unbound", address=edu, before="vfio-pci", after=None)
        seen.find("override-changed", before="vfio-pci", after=None)
        assert {event["group"] for event in seen.events()} == {group}
    with watch(vfioctl, group, "--interval", 0.3, "--events", "node-access,viable,not-viable") as seen:
        give(edu, "vfio-pci")
        assert vfioctl("permit", group, "--user", NOBODY).status == 0
        changed = seen.find("node-access", group=group, address=None)
        assert (changed["before"], changed["after"]) == (node, {**node, "uid": NOBODY})
        assert {event["event"] for event in seen.events()} == {"node-access"}


def test_a_host_driver_makes_a_group_not_viable(
    vfioctl: Vfioctl, roles: Mapping[str, str], vfio_pci: Path
) -> None:
    need_driver("e1000e")
    address = roles["nic_b"]
    take_back(address)
    with watch(vfioctl, address, "--interval", 60) as seen:
        waiting = listening(vfioctl.start("-v", "wait", address, "--driver", "e1000e", "-J"))
        give(address, "e1000e")
        seen.find("not-viable", group=group_of(address), before=True, after=False)
        late = vfioctl("wait", address, "--viable", "--timeout", 1, "-J")
        assert (late.status, late.stdout, late.json_error["code"]) == (124, "", "timeout")
        assert "the host driver e1000e owns its DMA" in late.json_error["message"]
        assert late.json_error["hint"] == f"vfioctl bind {address}"
        (unmet,) = late.json_error["unmet"]
        assert unmet["subject"] == address and unmet["detail"] in late.json_error["message"]
        take_back(address)
        seen.find("viable", before=False, after=True)
    result = waiting.wait()
    assert result.status == 0, result.stderr
    assert result.json["condition"] == "bound"
    (state,) = result.json["results"]
    assert (state["subject"], state["drivers"], state["viable"]) == (address, ["e1000e"], False)


def test_hot_plug(vfioctl: Vfioctl, roles: Mapping[str, str], qmp: Qmp) -> None:
    """A device comes with its group, and goes with it; both are waited for before they are there."""
    port = roles["hotplug_port"]
    bus = (PCI / port / "secondary_bus_number").read_text().strip()
    address = f"0000:{int(bus):02x}:00.0"
    assert vfioctl("wait", address, "--gone", "-q", "--timeout", 0).status == 0
    assert vfioctl("wait", address, "--present", "--timeout", 0).status == 124
    assert vfioctl("wait", address, "--released").status == 3
    first = listening(vfioctl.start("-v", "watch", address, "--count", 1, "--timeout", 60, "-n"))
    coming = listening(vfioctl.start("-v", "wait", address, "--present", "-J"))
    with watch(vfioctl, "--interval", 60) as seen:
        qmp.device_add("e1000e", "visitor", "hotplug_port", romfile="")
        added = seen.find("device-added", address=address, before=None)
        assert added["after"]["vendor"] == "8086" and added["after"]["device"] == "10d3"
        come = coming.wait()
        assert come.status == 0, come.stderr
        (state,) = come.json["results"]
        assert state["address"] == address
        wait_for(PCI / address / "iommu_group")
        group = group_of(address)
        added = seen.find("group-added", group=group, before=None)
        assert address in added["after"]["devices"]
        one = first.wait()
        assert one.status == 0 and len(one.stdout.splitlines()) == 1, one.stderr
        assert f" group-added {group} - - " in one.stdout
        going = listening(vfioctl.start("-v", "wait", address, group, "--gone", "-J"))
        qmp.device_del("visitor")
        assert qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "visitor"
        seen.find("device-removed", address=address, after=None)
        seen.find("group-removed", group=group, after=None)
        gone = going.wait()
        assert gone.status == 0, gone.stderr
        assert [state["group"] for state in gone.json["results"]] == [None, None]


def test_a_flood(vfioctl: Vfioctl, roles: Mapping[str, str], edu: str) -> None:
    """More events than the socket holds: some are lost, and no state is."""
    with watch(vfioctl, edu, "--interval", 600, "--events", "bound,unbound") as seen:
        pid = seen.running.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            flood(roles, 1000)
            for _ in range(3):
                give(edu, "vfio-pci")
                take_back(edu)
            give(edu, "vfio-pci")
            lost = drops(pid)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert lost > 0, Path("/proc/net/netlink").read_text()
        seen.find("bound", address=edu, after="vfio-pci")
        # And while it looks.
        for _ in range(3):
            take_back(edu)
            flood(roles)
            give(edu, "vfio-pci")
            flood(roles)
        take_back(edu)
        flood(roles)
        until = time.monotonic() + SECONDS
        while seen.events()[-1]["event"] != "unbound":
            assert time.monotonic() < until, seen.events()
            time.sleep(0.05)
        drivers = [(event["before"], event["after"]) for event in seen.events()]
        assert drivers == [(None, "vfio-pci"), ("vfio-pci", None)] * (len(drivers) // 2)


def flood(roles: Mapping[str, str], count: int = 200) -> None:
    """So many events of another device, which nothing happens to."""
    with open(PCI / roles["vga"] / "uevent", "wb", buffering=0) as file:
        for _ in range(count):
            file.write(b"add")


def drops(pid: int) -> int:
    """How often the process's socket for the kernel's events (protocol 15) was full."""
    lines = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    return sum(int(line[8]) for line in lines if line[1] == "15" and line[2] == str(pid))


def test_until_it_is_released(vfioctl: Vfioctl, edu: str) -> None:
    give(edu, "vfio-pci")
    group = group_of(edu)
    node = vfio.group_path(group)
    assert vfioctl("wait", group, "--released", "--timeout", 0, "-q").status == 0
    with process(open_node(node)) as pid:
        late = vfioctl("wait", edu, "--released", "--timeout", 1, "-J")
        assert (late.status, late.stdout) == (124, ""), late.stderr
        assert f"process {pid}," in late.json_error["message"] and node in late.json_error["message"]
        assert [holder["pid"] for holder in late.json_error["holders"]] == [pid]
        unseen = vfioctl("wait", group, "--released", "--timeout", 1, "-J", user=vfioctl.unprivileged)
        assert (unseen.status, unseen.json_error["code"]) == (4, "permission"), unseen.stderr
        # Who may not see the holder but may open the node is told by that.
        os.chown(node, NOBODY, NOBODY)
        blind = vfioctl("wait", group, "--released", "--timeout", 1, "-J", user=vfioctl.unprivileged)
        assert blind.status == 124 and "not seen" in blind.json_error["message"], blind.stderr
        waiting = vfioctl.start("wait", group, "--released", "-J", "--timeout", 60)
        unprivileged = vfioctl.start(
            "wait", group, "--released", "-q", "--timeout", 60, user=vfioctl.unprivileged
        )
        time.sleep(2)
        assert waiting.alive() and unprivileged.alive()
    done, also = waiting.wait(), unprivileged.wait()
    assert done.status == 0, done.stderr
    assert done.json["results"][0]["node"]["path"] == node
    assert also.status == 0, also.stderr
    with process(device_alone(edu)) as pid:
        alone = vfioctl("wait", edu, "--released", "--timeout", 0, "-J")
        assert alone.status == 124 and f"process {pid}," in alone.json_error["message"], alone.stderr
        going = vfioctl.start("wait", edu, "--released", "--timeout", 60)
    assert going.wait().status == 0


def test_a_node_that_udev_has_done_with(vfioctl: Vfioctl, edu: str, udevd: Udevd) -> None:
    udevd.add_rules(
        {
            "50-slow.rules": 'SUBSYSTEM=="vfio", ACTION=="add", KERNEL!="vfio", PROGRAM="/bin/sleep 1", '
            'OWNER="12", MODE="0640"\n'
        }
    )
    waiting = listening(vfioctl.start("-v", "wait", edu, "--node", "-n", "-o", "node,owner,mode"))
    give(edu, "vfio-pci")
    result = waiting.wait()
    assert result.status == 0, result.stderr
    assert result.stdout == f"/dev/vfio/{group_of(edu)} 12:0 0640\n"
    assert vfioctl("wait", edu, "--usable", "-q", "--timeout", 0).status == 0


def test_how_it_ends(vfioctl: Vfioctl, edu: str) -> None:
    def start(*arguments: object) -> Running:
        return listening(vfioctl.start("-v", "watch", "--interval", 60, *arguments))

    interrupted = start()
    os.kill(interrupted.pid, signal.SIGINT)
    assert interrupted.wait().status == 130
    fewer = vfioctl("watch", edu, "--count", 1, "--timeout", 0.5, "-J")
    assert (fewer.status, fewer.json_error["code"]) == (124, "too-few-events")
    assert vfioctl("watch", edu, "--timeout", 0.5).status == 0
    initial = vfioctl("watch", "--initial", "--timeout", 0, "--events", "device-added", "-n", "-o", "device")
    assert sorted(initial.stdout.split()) == sorted(os.listdir(PCI))
    on_terminal = vfioctl("watch", edu, "--initial", "--timeout", 0, tty=True)
    lines = on_terminal.stdout.splitlines()
    assert lines[0].split() == ["CLOCK", "EVENT", "GROUP", "DEVICE", "BEFORE", "AFTER"]
    assert f"device-added      {group_of(edu)}" in on_terminal.stdout
    # Nobody reads any more, and nothing happens.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writing, 1)
            os.close(reading)
            os.close(writing)
            os.execv(sys.executable, [sys.executable, "-m", "vfioctl", "watch", "--interval", "60"])
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(3)  # long enough for it to start, mostly: it ends so in any case
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 141
