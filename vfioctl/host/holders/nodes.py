"""Which device nodes belong to a device: its own, and those of what is built on it.

/sys/dev lists every node that there is with the directory of its device (drivers/base/core.c,
device_create_sys_dev_entry), so that one pass over it answers for any number of devices.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vfioctl.host.files import link_name, names, read
from vfioctl.host.survey import patience_in, survey
from vfioctl.model import VFIO_DRIVERS


class DeviceNode(NamedTuple):
    """``kind`` is the kernel's subsystem (vfio, vfio-dev, drm, block, input, sound ...), ``number`` the st_rdev."""

    path: str
    kind: str
    number: int
    is_block: bool = False


class _Place(NamedTuple):
    """A node as /sys/dev has it: ``number`` is MAJOR:MINOR."""

    directory: str
    number: str
    is_block: bool


class Owners:
    """Which of some devices (by ``bus/address``) a directory below /sys belongs to."""

    def __init__(self, root: str, keys: Iterable[str]) -> None:
        self.root = os.path.realpath(root)
        #: Directory to the devices that it and all below it belongs to.
        self.homes: dict[str, list[str]] = {}
        for key in keys:
            self.add(self._directory(*key.split("/", 1)), [key])

    def at(self, path: str) -> str:
        """Where ``path`` (relative to /) is."""
        return os.path.join(self.root, path)

    def _directory(self, bus: str, address: str) -> str:
        on_bus = self.at(f"sys/bus/{bus}/devices/{address}")
        if not os.path.lexists(on_bus):
            # A mediated device that is being removed has left its bus while the kernel waits for its users.
            top = self.at("sys/kernel/iommu_groups")
            for group in names(top):
                member = os.path.join(top, group, "devices", address)
                if os.path.lexists(member):
                    return os.path.realpath(member)
        return os.path.realpath(on_bus)

    def add(self, directory: str, keys: Iterable[str]) -> None:
        """The directory belongs to these devices too."""
        known = self.homes.setdefault(directory, [])
        known += [key for key in keys if key not in known]

    def of(self, directory: str) -> list[str]:
        """The devices to which a directory (a real path) belongs."""
        found: list[str] = []
        while directory.strip("/"):
            found += [key for key in self.homes.get(directory, ()) if key not in found]
            directory = os.path.dirname(directory)
        return found


def nodes_of(root: str, keys: Iterable[str], timeout: float = 10.0) -> dict[str, list[DeviceNode]]:
    """Of each device (by ``bus/address``): the nodes of its VFIO group and of itself, and all nodes of what is below it
    in sysfs or is built on its disks (NVMe multipath, device-mapper, md). A bridge has those of all behind it.
    A node that does not tell its path within ``timeout`` (seconds, for all) is called as its directory in sysfs."""
    owners = Owners(root, keys)
    found: dict[str, dict[_Place, None]] = {key: {} for keys in owners.homes.values() for key in keys}
    for directory, members in _groups(owners):
        owners.add(directory, [key for member in members for key in owners.of(member)])
    for directory, controllers in _nvme_subsystems(owners):
        owners.add(directory, [key for controller in controllers for key in owners.of(controller)])
    for kind in ("char", "block"):
        top = owners.at(f"sys/dev/{kind}")
        for number in names(top):
            try:
                link = os.readlink(os.path.join(top, number))
            except FileNotFoundError:  # it has just gone
                continue
            place = _Place(os.path.normpath(os.path.join(top, link)), number, kind == "block")
            holding = owners.of(place.directory)
            if holding:
                places = [
                    place,
                    *(_stacked(owners, place.directory, {place.directory}) if place.is_block else ()),
                ]
                for key in holding:
                    found[key].update(dict.fromkeys(places))
    everywhere = sorted({place.directory for places in found.values() for place in places})
    # On some kernels this file waits for the device's lock (commit c0a40097f0bc, drivers/base/core.c, uevent_show).
    paths = dict(survey(_path, everywhere, patience_in(timeout), timeout)[0])
    return {
        key: [*(_node(place, paths.get(place.directory)) for place in places), *_nvidia(owners, key)]
        for key, places in found.items()
    }


def suspects(root: str) -> list[str]:
    """The sysfs directories of the devices that a VFIO device file could be of: those that VFIO has, and those of which
    it still has the group while the kernel waits for their user."""
    owners = Owners(root, ())
    top = owners.at("sys/class/vfio-dev")
    found = [
        os.path.dirname(os.path.dirname(os.path.realpath(os.path.join(top, name)))) for name in names(top)
    ]
    for _, members in _groups(owners):
        for member in members:
            driver = link_name(os.path.join(member, "driver"))
            if driver is None or driver in VFIO_DRIVERS:
                found.append(member)
    return list(dict.fromkeys(found))


def _groups(owners: Owners) -> Iterator[tuple[str, list[str]]]:
    """The directory of each VFIO group's node, and those of the group's members."""
    top = owners.at("sys/class/vfio")
    for name in names(top):
        devices = owners.at(f"sys/kernel/iommu_groups/{name.removeprefix('noiommu-')}/devices")
        members = [os.path.realpath(os.path.join(devices, member)) for member in names(devices)]
        yield os.path.realpath(os.path.join(top, name)), members


def _nvme_subsystems(owners: Owners) -> Iterator[tuple[str, list[str]]]:
    """The directory of each NVMe subsystem, which has the disks of a kernel with multipath, and its controllers'."""
    top = owners.at("sys/class/nvme-subsystem")
    for name in names(top):
        directory = os.path.realpath(os.path.join(top, name))
        links = [os.path.join(directory, entry) for entry in names(directory) if entry.startswith("nvme")]
        yield directory, [os.path.realpath(link) for link in links if os.path.islink(link)]


def _path(directory: str) -> str | None:
    lines = (read(os.path.join(directory, "uevent")) or "").split("\n")
    return next((f"/dev/{line[8:]}" for line in lines if line.startswith("DEVNAME=")), None)


def _node(place: _Place, path: str | None) -> DeviceNode:
    major, _, minor = place.number.partition(":")
    return DeviceNode(
        path or f"/dev/{os.path.basename(place.directory)}",
        link_name(os.path.join(place.directory, "subsystem")) or "unknown",
        os.makedev(int(major), int(minor)),
        place.is_block,
    )


def _stacked(owners: Owners, directory: str, seen: set[str]) -> Iterator[_Place]:
    for name in names(os.path.join(directory, "holders")):
        above = os.path.realpath(owners.at(f"sys/class/block/{name}"))
        number = read(os.path.join(above, "dev"))
        if above not in seen and number:
            seen.add(above)
            yield _Place(above, number, True)
            yield from _stacked(owners, above, seen)


def _nvidia(owners: Owners, key: str) -> Iterator[DeviceNode]:
    """NVIDIA's own driver registers its nodes by number only, and says in procfs which is whose."""
    bus, _, address = key.partition("/")
    text = read(owners.at(f"proc/driver/nvidia/gpus/{address}/information")) if bus == "pci" else None
    for line in (text or "").split("\n"):
        label, _, minor = line.partition(":")
        if label == "Device Minor" and minor.strip().isdecimal():
            number = int(minor)
            yield DeviceNode(f"/dev/nvidia{number}", "nvidia", os.makedev(195, number))
