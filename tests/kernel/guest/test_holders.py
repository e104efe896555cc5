"""``vfioctl holders`` on a real kernel: every way in which a process can hold a device."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of, modprobe, on_host_driver, override_of, probe, unbind
from tests.kernel.guest.test_host_driver import interface_of, wait_for
from vfioctl.host import vfio
from vfioctl.uapi import vfio as uapi

pytestmark = pytest.mark.one_kernel("6.1")

Row = tuple[int, str | None, str, bool]


@contextlib.contextmanager
def process(hold: Callable[[], object]) -> Iterator[int]:
    """Another process, which has called ``hold`` and lives until it is not needed any more."""
    ready, not_ready = os.pipe()
    until, go_on = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go_on)
            until, not_ready = os.dup2(until, 300), os.dup2(not_ready, 301)  # out of the way of hold()
            kept = hold()
            os.write(not_ready, b"." if kept is not None else b"?")
            os.read(until, 1)
        finally:
            os._exit(0)
    os.close(not_ready)
    os.close(until)
    assert os.read(ready, 1) == b".", "the process could not take hold"
    os.close(ready)
    try:
        yield pid
    finally:
        os.close(go_on)
        os.waitpid(pid, 0)


@pytest.fixture
def edu(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[str]:
    """A device on vfio-pci."""
    address = roles["edu"]
    result = vfioctl("bind", address)
    assert result.status == 0, result.stderr
    modprobe("vfio_iommu_type1")
    yield address
    assert vfioctl("unbind", address).status == 0


@pytest.fixture
def disk(roles: Mapping[str, str]) -> Iterator[str]:
    """The NVMe disk on its host driver."""
    address = roles["nvme"]
    on_host_driver(address, "nvme")
    wait_for(Path("/dev/nvme0n1"))
    yield address
    unbind(address)


def open_node(path: str) -> Callable[[], object]:
    return lambda: os.open(path, os.O_RDWR)


def open_device(address: str) -> int:
    """The device's file; container and group are open too."""
    container = os.open(vfio.container_path(), os.O_RDWR)
    group = os.open(vfio.group_path(group_of(address)), os.O_RDWR)
    vfio.group_set_container(group, container)
    vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
    return vfio.group_get_device_fd(group, address)


def device_alone(address: str) -> Callable[[], object]:
    def hold() -> object:
        device = os.dup2(open_device(address), 200)
        os.closerange(3, 200)
        return device

    return hold


def mapping_alone(address: str) -> Callable[[], object]:
    def hold() -> object:
        memory = mmap.mmap(open_device(address), 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=0)
        os.closerange(3, 300)
        return memory

    return hold


def rows(result: Any) -> list[Row]:
    assert result.status == 0, result.stderr
    return [(h["pid"], h["node"], h["kind"], h["certain"]) for h in result.json["holders"]]


def test_nobody(vfioctl: Vfioctl, edu: str) -> None:
    result = vfioctl("holders", edu, "-J")
    assert (result.status, result.json) == (0, {"schema_version": 1, "holders": [], "unseen": 0})
    assert vfioctl("holders", "-q", edu).status == 1


def test_the_node_of_the_group(vfioctl: Vfioctl, edu: str) -> None:
    node = vfio.group_path(group_of(edu))
    with process(open_node(node)) as pid:
        result = vfioctl("holders", edu, "-J")
        assert rows(result) == [(pid, node, "vfio", True)]
        (holder,) = result.json["holders"]
        assert (holder["address"], holder["group"], holder["uid"], holder["user"]) == (
            edu, group_of(edu), 0, "root",
        )  # fmt: skip
        assert holder["command"] == Path(f"/proc/{pid}/comm").read_text().strip()
        assert rows(vfioctl("holders", group_of(edu), "-J")) == [(pid, node, "vfio", True)]
        assert (pid, node, "vfio", True) in rows(vfioctl("holders", "-J"))
        quiet = vfioctl("holders", "-q", edu)
        assert (quiet.status, quiet.stdout) == (0, "")
        assert f" {pid} " in vfioctl("holders").stdout
        busy = vfioctl("unbind", edu, "-J")
        assert (busy.status, busy.json_error["code"]) == (6, "group-busy")
        assert f"process {pid}, user root" in busy.json_error["message"]
        assert [h["pid"] for h in busy.json_error["holders"]] == [pid]
    assert rows(vfioctl("holders", edu, "-J")) == []


def test_the_device_alone(vfioctl: Vfioctl, edu: str) -> None:
    """Its group has been closed. Before Linux 6.18 the kernel does not say which device it is; it is the only one."""
    with process(device_alone(edu)) as pid:
        assert rows(vfioctl("holders", edu, "-J")) == [(pid, None, "vfio-device", True)]
        busy = vfioctl("unbind", edu, "-J")
        assert busy.status == 6
        assert f"process {pid}, " in busy.json_error["message"]
        assert "perhaps" not in busy.json_error["message"]


def test_one_device_of_two(vfioctl: Vfioctl, edu: str, roles: Mapping[str, str], machine: str) -> None:
    other = roles["nic_a"]
    assert vfioctl("bind", other).status == 0
    try:
        with process(device_alone(edu)) as pid:
            told = machine != "6.1"  # by fdinfo
            assert rows(vfioctl("holders", edu, "-J")) == [(pid, None, "vfio-device", told)]
            assert rows(vfioctl("holders", other, "-J")) == (
                [] if told else [(pid, None, "vfio-device", False)]
            )
            node = vfio.group_path(group_of(other))
            with process(open_node(node)) as second:
                assert rows(vfioctl("holders", other, "-J")) == [(second, node, "vfio", True)]
    finally:
        assert vfioctl("unbind", other).status == 0


def test_a_mapping_alone(vfioctl: Vfioctl, edu: str) -> None:
    with process(mapping_alone(edu)) as pid:
        assert not any("vfio" in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
        assert rows(vfioctl("holders", edu, "-J")) == [(pid, None, "vfio-device", True)]
        busy = vfioctl("unbind", edu, "-J")
        assert (busy.status, busy.json_error["code"]) == (6, "group-busy")
        assert f"process {pid}, " in busy.json_error["message"]


def test_a_disk_opened_raw(vfioctl: Vfioctl, disk: str) -> None:
    with (
        process(lambda: os.open("/dev/nvme0n1", os.O_RDONLY)) as first,
        process(open_node("/dev/nvme0")) as second,
    ):
        expected = sorted([(first, "/dev/nvme0n1", "block", True), (second, "/dev/nvme0", "nvme", True)])
        assert rows(vfioctl("holders", "nvme0n1", "-J")) == expected
        assert rows(vfioctl("holders", disk, "-J")) == expected


def test_a_disk_that_is_held_is_not_taken(vfioctl: Vfioctl, disk: str) -> None:
    assert vfioctl("impact", "-q", disk).status == 0
    with process(lambda: os.open("/dev/nvme0n1", os.O_RDONLY)) as pid:
        for arguments in (
            ("bind", disk),
            ("bind", "nvme0n1", "--dry-run"),
            ("unbind", disk, "--leave-unbound"),
        ):
            refused = vfioctl(*arguments, "-J")
            assert refused.status == 5, refused.stderr
            assert refused.json_error["code"] == "held"
            assert f"process {pid}, user root) has /dev/nvme0n1 open" in refused.json_error["message"]
            assert "--allow held" in refused.json_error["hint"]
            assert (driver_of(disk), override_of(disk)) == ("nvme", None)
        assert Path("/dev/nvme0n1").exists()
        impact = vfioctl("impact", disk, "-J")
        assert impact.status == 1
        assert [use["guard"] for use in impact.json["results"][0]["impacts"]] == ["held"]
        allowed = vfioctl("bind", disk, "--allow", "held")
        assert allowed.status == 0, allowed.stderr
        assert driver_of(disk) == "vfio-pci"
    assert vfioctl("unbind", disk).status == 0


def test_one_who_only_looks_on_is_no_reason(vfioctl: Vfioctl, disk: str) -> None:
    def look() -> object:
        Path("/proc/self/comm").write_text("systemd-logind")
        return os.open("/dev/nvme0n1", os.O_RDONLY)

    with process(look) as pid:
        assert rows(vfioctl("holders", disk, "-J")) == [(pid, "/dev/nvme0n1", "block", True)]
        impact = vfioctl("impact", disk, "-J")
        assert impact.status == 0
        assert [use["level"] for use in impact.json["results"][0]["impacts"]] == ["warn"]
        assert vfioctl("bind", disk, "--dry-run").status == 0


def test_an_interface_that_is_up(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["nic_a"]
    modprobe("e1000e")
    unbind(address)
    probe(address)
    name = interface_of(address)
    subprocess.run(["ip", "address", "add", "192.0.2.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    try:
        (holder,) = vfioctl("holders", address, "-J").json["holders"]
        assert (holder["kind"], holder["pid"]) == ("net", None)
        assert holder["what"] == f"{name} is up with the address 192.0.2.1"
        assert vfioctl("holders", "-q", name).status == 0
    finally:
        subprocess.run(["ip", "link", "set", name, "down"], check=True)
    assert vfioctl("holders", "-q", name).status == 1
    unbind(address)


def test_a_graphics_card(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    address = roles["vga"]
    unbind(address)
    modprobe("bochs")
    probe(address)
    try:
        card = wait_for(Path("/dev/dri/card0"))
        with process(open_node(str(card))) as pid:
            assert rows(vfioctl("holders", address, "-J")) == [(pid, "/dev/dri/card0", "drm", True)]
    finally:
        unbind(address)
    assert driver_of(address) is None


def test_units_and_containers(vfioctl: Vfioctl, edu: str, tmp_path: Path) -> None:
    """Groups named as docker, libvirt and systemd name theirs."""
    subprocess.run(["mount", "-t", "cgroup2", "none", str(tmp_path)], check=True)
    identifier = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
    made = []
    try:
        for path, unit, container in (
            (f"system.slice/docker-{identifier}.scope", f"docker-{identifier}.scope", f"docker:{identifier}"),
            (
                r"machine.slice/machine-qemu\x2d1\x2dwin.scope/libvirt/emulator",
                r"machine-qemu\x2d1\x2dwin.scope",
                "vm:win",
            ),
            ("system.slice/nvidia-persistenced.service", "nvidia-persistenced.service", None),
        ):
            group = tmp_path / path
            group.mkdir(parents=True)
            made.append(group)
            with process(open_node(vfio.group_path(group_of(edu)))) as pid:
                (group / "cgroup.procs").write_text(str(pid))
                (holder,) = vfioctl("holders", edu, "-J").json["holders"]
                assert (holder["unit"], holder["container"]) == (unit, container)
                if container == "vm:win":
                    assert "VM win)" in vfioctl("unbind", edu, "-J").json_error["message"]
    finally:
        for group in made:
            while group != tmp_path:
                with contextlib.suppress(OSError):
                    group.rmdir()
                group = group.parent
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_who_may_not_see(vfioctl: Vfioctl, edu: str) -> None:
    node = vfio.group_path(group_of(edu))
    with process(open_node(node)) as pid:
        result = vfioctl("holders", edu, "-J", user=vfioctl.unprivileged)
        assert (result.status, result.json["holders"]) == (0, [])
        assert result.json["unseen"] >= 1
        assert f"{result.json['unseen']} processes could not be looked into" in result.stderr

        def own() -> object:
            os.setgid(65534)
            os.setuid(65534)
            import ctypes

            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after an exec
            return os.open("/dev/full", os.O_RDWR)

        os.chown("/dev/full", 65534, -1)
        with process(own):
            again = vfioctl("holders", edu, "-J", user=vfioctl.unprivileged)
            assert again.json["unseen"] == result.json["unseen"]
        os.chown("/dev/full", 0, -1)
        assert rows(vfioctl("holders", edu, "-J"))[0][0] == pid
    subprocess.run(["mount", "-o", "remount,hidepid=2", "/proc"], check=True)
    try:
        hidden = vfioctl("holders", edu, "-J", user=vfioctl.unprivileged)
        assert (hidden.status, hidden.json["unseen"]) == (0, None)
        assert "hidepid" in hidden.stderr
    finally:
        subprocess.run(["mount", "-o", "remount,hidepid=0", "/proc"], check=True)
