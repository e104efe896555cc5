"""Units and containers by /proc/PID/cgroup, as systemd, container engines and libvirt really name their groups."""

from __future__ import annotations

import pytest

from vfioctl.host.holders.cgroup import membership, unescape

ID = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
OTHER = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
POD = "pod7e44ee88_1e65_4a16_8cdf_9a90c819180e"


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        ("/", None, None),
        ("/init.scope", "init.scope", None),
        ("/system.slice/nvidia-persistenced.service", "nvidia-persistenced.service", None),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None),
        ("/system.slice/_cpu.service", "cpu.service", None),
        ("/system.slice/ssh.service (deleted)", "ssh.service", None),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4711.scope",
            "app-gnome-firefox-4711.scope",
            None,
        ),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope", None),
        (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", f"docker:{ID}"),
        (f"/system.slice/docker-{ID}.scope/init.scope", f"docker-{ID}.scope", f"docker:{ID}"),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope",
            f"docker-{ID}.scope",
            f"docker:{ID}",
        ),
        (f"/docker/{ID}", None, f"docker:{ID}"),
        (f"/docker/buildkit/{ID}", None, f"container:{ID}"),
        (f"/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", f"podman:{ID}"),
        (f"/machine.slice/libpod-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope", None),
        (f"/libpod_parent/libpod-{ID}", None, f"podman:{ID}"),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
            f"cri-containerd-{ID}.scope",
            f"cri-containerd:{ID}",
        ),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/crio-{ID}.scope/container",
            f"crio-{ID}.scope",
            f"cri-o:{ID}",
        ),
        (f"/kubepods/besteffort/{POD}/{ID}", None, f"kubernetes:{ID}"),
        (f"/kubepods/burstable/{POD}/crio-{ID}", None, f"cri-o:{ID}"),
        (
            f"/system.slice/containerd.service/kubepods-burstable-{POD}.slice:cri-containerd:{ID}",
            "containerd.service",
            f"cri-containerd:{ID}",
        ),
        (
            f"/docker/{OTHER}/kubelet/kubepods/besteffort/{POD}/{ID}",
            None,
            f"docker:{OTHER}/kubernetes:{ID}",
        ),
        (f"/ecs/cluster/61c9{'0' * 28}/{ID}", None, f"container:{ID}"),
        ("/lxc.payload.web/system.slice/nginx.service", None, "lxc:web"),
        (f"/lxc.payload.web/system.slice/docker-{ID}.scope", None, f"lxc:web/docker:{ID}"),
        ("/lxc.payload/web", None, "lxc:web"),
        ("/lxc/101/ns/system.slice/ssh.service", None, "lxc:101"),
        ("/lxc.monitor.web", None, None),
        (
            r"/machine.slice/machine-qemu\x2d1\x2dwin10\x2dgpu.scope/libvirt/emulator",
            r"machine-qemu\x2d1\x2dwin10\x2dgpu.scope",
            "vm:win10-gpu",
        ),
        (
            r"/machine.slice/machine-qemu\x2d26\x2dinstance\x2d00000001.scope/emulator",
            r"machine-qemu\x2d26\x2dinstance\x2d00000001.scope",
            "vm:instance-00000001",
        ),
        (r"/machine.slice/machine-qemu\x2dold.scope", r"machine-qemu\x2dold.scope", "vm:old"),
        (r"/machine.slice/machine-lxc\x2d7\x2dbox.scope", r"machine-lxc\x2d7\x2dbox.scope", "lxc:box"),
        ("/machine/qemu-1-win10.libvirt-qemu/emulator", None, "vm:win10"),
        ("/qemu.slice/100.scope", "100.scope", "vm:100"),
        (
            r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload/system.slice/a.service",
            r"systemd-nspawn@my\x2dbox.service",
            "nspawn:my-box",
        ),
        ("/machine.slice/machine-fedora.scope", "machine-fedora.scope", "machine:fedora"),
        # Names that only look like it.
        ("/system.slice/docker.service", "docker.service", None),
        ("/system.slice/docker-cleanup.service", "docker-cleanup.service", None),
        ("/user.slice/deadbeef0000", None, None),
    ],
)
def test_version_2(path: str, unit: str | None, container: str | None) -> None:
    assert membership(f"0::{path}\n") == (unit, container)


def test_version_1_of_docker_beside_systemd() -> None:
    """systemd's own hierarchy has the container, version 2 the service of the engine."""
    text = f"""\
12:devices:/docker/{ID}
11:cpu,cpuacct:/docker/{ID}
2:misc:/
1:name=systemd:/docker/{ID}
0::/system.slice/containerd.service
"""
    assert membership(text) == ("containerd.service", f"docker:{ID}")


def test_version_1_of_libvirt() -> None:
    scope = r"machine-qemu\x2d3\x2dweb.scope"
    lines = [f"4:cpuset:/machine.slice/{scope}/emulator", f"1:name=systemd:/machine.slice/{scope}", "0::/"]
    assert membership("\n".join(lines)) == (scope, "vm:web")


def test_version_1_of_a_service() -> None:
    text = "5:memory:/system.slice\n3:pids:/system.slice/a.service\n1:name=systemd:/system.slice/a.service\n"
    assert membership(text) == ("a.service", None)


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "0::", "0:/", "::"])
def test_what_is_not_one(text: str) -> None:
    assert membership(text) == (None, None)


def test_a_path_with_colons() -> None:
    assert membership("0::/system.slice/a:b:c.service\n").unit == "a:b:c.service"


def test_unescape() -> None:
    assert unescape(r"a\x2db\xc3\xa4") == "a-bä"
    assert unescape(r"\xff\x2") == "\udcff\\x2"
