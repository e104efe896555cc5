"""What the text of /proc/PID/cgroup says of a process: its systemd unit, and its container or virtual machine. Pure.

A line is ``ID:CONTROLLERS:PATH`` (cgroups(7)); with cgroup v2 alone there is one, ``0::PATH``. Who made a group is told
by its name only: systemd, container engines and libvirt each have their own way to name theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Membership(NamedTuple):
    """``unit``: the innermost unit of the host's systemd, as systemctl wants it. ``container``: ``KIND:NAME`` with the
    kind ``docker``, ``podman``, ``cri-containerd``, ``cri-o``, ``lxc``, ``nspawn``, ``vm`` ..., outermost first and
    joined by ``/`` where one is in the other."""

    unit: str | None = None
    container: str | None = None


_ID = r"(?P<id>[0-9a-f]{12,64})"
_ENGINES = {
    "docker": "docker", "libpod": "podman", "cri-containerd": "cri-containerd", "nerdctl": "containerd",
    "containerd": "containerd", "crio": "cri-o", "cri-o": "cri-o", "buildkit": "buildkit",
}  # fmt: skip
#: systemd's name (docker-ID.scope), cgroupfs's (crio-ID), and containerd's where it takes the one for the other
#: (kubepods-burstable-podUID.slice:cri-containerd:ID).
_ENGINE = re.compile(rf"(?:[^:]*:)?(?P<engine>{'|'.join(_ENGINES)})[-:]{_ID}(?:\.scope)?")
_BARE = re.compile(_ID.replace("12,64", "64"))
#: A machine that is registered with systemd-machined; libvirt names its own DRIVER-NUMBER-NAME.
_MACHINE = re.compile(r"machine-(.+)\.scope")
_DOMAIN = re.compile(r"(?P<driver>qemu|xen|ch|lxc)-(?:\d+-)?(?P<name>.+)")
#: libvirt without systemd: /machine/qemu-1-NAME.libvirt-qemu.
_LIBVIRT = re.compile(r"(?:\w+-\d+-)?(?P<name>.+)\.libvirt-(?P<driver>\w+)")
_NSPAWN = re.compile(r"systemd-nspawn@(.+)\.service")


def membership(text: str) -> Membership:
    """The unit and the container of a process. Of several hierarchies systemd's own is asked first."""
    unit = container = None
    for path in _paths(text):
        parts = path.strip("/").split("/")
        found = list(_containers(parts))
        # What is below a container is named by those inside.
        units = [_unit(part) for part in parts[: found[0][0] + 1 if found else None]]
        unit = unit or next(filter(None, reversed(units)), None)
        container = container or "/".join(name for _, name in found) or None
    return Membership(unit, container)


def unescape(name: str) -> str:
    r"""A part of a unit's name as it was before systemd escaped it: ``qemu\x2d1\x2dwin`` is ``qemu-1-win``."""
    data = re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda byte: bytes([int(byte[1], 16)]), name.encode(errors="surrogateescape")
    )
    return data.decode(errors="surrogateescape")


def _paths(text: str) -> list[str]:
    """The paths, that in systemd's hierarchy first, then that of version 2."""
    lines = [line.split(":", 2) for line in text.split("\n") if line.count(":") >= 2]
    lines.sort(key=lambda line: (line[1] != "name=systemd", line[0] != "0"))
    return list(dict.fromkeys(line[2].removesuffix(" (deleted)") for line in lines))


def _unit(part: str) -> str | None:
    # systemd puts an underscore before what could be a file of the kernel's.
    return part.removeprefix("_") if part.endswith((".service", ".scope")) else None


def _containers(parts: list[str]) -> Iterator[tuple[int, str]]:
    for index, part in enumerate(parts):
        name = _container(part, parts[index - 1] if index else "", parts[:index])
        if name is not None:
            yield index, name


def _container(part: str, parent: str, above: list[str]) -> str | None:
    if match := _ENGINE.fullmatch(part):
        return f"{_ENGINES[match['engine']]}:{match['id']}"
    if _BARE.fullmatch(part):
        kubernetes = any(name.startswith("kubepods") for name in above)
        return f"{'docker' if parent == 'docker' else 'kubernetes' if kubernetes else 'container'}:{part}"
    if part.startswith("lxc.payload."):
        return f"lxc:{part.removeprefix('lxc.payload.')}"
    if parent in ("lxc", "lxc.payload"):
        return f"lxc:{part}"
    if match := _MACHINE.fullmatch(part):
        name = unescape(match[1])
        if domain := _DOMAIN.fullmatch(name):
            return _libvirt(domain["driver"], domain["name"])
        return f"machine:{name}"
    if match := _LIBVIRT.fullmatch(part):
        return _libvirt(match["driver"], match["name"])
    if match := _NSPAWN.fullmatch(part):
        return f"nspawn:{unescape(match[1])}"
    if parent == "qemu.slice" and re.fullmatch(r"\d+\.scope", part):  # Proxmox VE
        return f"vm:{part.removesuffix('.scope')}"
    return None


def _libvirt(driver: str, name: str) -> str:
    return f"{'lxc' if driver == 'lxc' else 'vm'}:{name}"
