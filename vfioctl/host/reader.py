"""Reads a :class:`Snapshot` from sysfs, procfs and /dev: the only way in for what the looking commands say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache

from vfioctl.host.files import GONE, is_there, link_name, names, read
from vfioctl.host.locked import Lock, read_all
from vfioctl.model import Device, IommuGroup, Kernel, Node, PciIds, Platform, ReservedRegion, Snapshot

_PATH = os.O_PATH | os.O_CLOEXEC
#: Where a snapshot has what no file tells (see vfioctl.host.recorded).
RECORD = "vfioctl-snapshot.json"


def read_snapshot(root: str = "/", *, ungrouped: bool = False, named: Iterable[str] = ()) -> Snapshot:
    """Everything under ``root`` that belongs to an IOMMU group; with ``ungrouped`` also PCI devices without one; and
    the devices ``named`` (bus/address) that there are.

    Raises PermissionError when a file is there and forbidden.
    """
    reader = _Reader(root)
    groups = reader.groups()
    known = {d.key for group in groups for d in group.devices}
    alone = reader.ungrouped(known) if ungrouped else []
    alone += reader.named(set(named) - known)
    groups, alone = _with_overrides(root, groups, alone)
    devices = [device for group in groups for device in group.devices] + alone
    kernel = reader.kernel()._replace(has_vfio_dev=any(device.vfio_dev for device in devices))
    return Snapshot(kernel, tuple(groups), tuple(devices))


def read_platform(root: str = "/") -> Platform:
    """The evidence for :func:`vfioctl.policy.diagnosis.why_no_groups`."""
    here = _Reader(root).at
    tables = names(here("sys/firmware/acpi/tables"))
    return Platform(
        machine=_machine(root),
        cmdline=read(here("proc/cmdline")) or "",
        firmware_tables=tuple(t for t in tables if t in ("DMAR", "IVRS", "IORT", "VIOT", "RIMT")),
        iommu_units=tuple(names(here("sys/class/iommu"))),
        sysfs_mounted=os.path.isdir(here("sys/kernel")),
        groups_directory=os.path.isdir(here("sys/kernel/iommu_groups")),
    )


def parse_pci_modalias(text: str) -> PciIds | None:
    """``pci:v00008086d000010D3sv...sd...bc02sc00i00`` holds all ids in one lock-free read
    (Linux drivers/pci/pci-sysfs.c, modalias_show); the fields are of fixed width."""
    if len(text) < 53 or text[4] != "v" or text[13] != "d" or text[22:24] != "sv" or text[32:34] != "sd":
        return None
    low = text.lower()
    return PciIds(low[44:46] + low[48:50] + low[51:53], low[9:13], low[18:22], low[28:32], low[38:42])


@lru_cache(maxsize=16)  # most groups of a host have the same regions
def parse_reserved_regions(text: str) -> tuple[ReservedRegion, ...]:
    """Lines of ``0x<first> 0x<last, inclusive> type``; lines of another form are passed over."""
    regions = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[0].startswith("0x") and fields[1].startswith("0x"):
            regions.append(ReservedRegion(int(fields[0], 16), int(fields[1], 16), fields[2]))
    return tuple(regions)


def node_at(root: str, path: str) -> Node | None:
    """The device node ``path`` (absolute) of the host at ``root``; of a snapshot, what that has recorded of it."""
    if root != "/" and os.path.exists(os.path.join(root, RECORD)):
        from vfioctl.host.recorded import recorded

        record = recorded(root)
        return record and record.nodes.get(path)
    return stat_node(os.path.join(root, path.lstrip("/")), path)


def stat_node(path: str, shown: str | None = None) -> Node | None:
    """Owner and mode of a device node, or None when it is not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return Node(shown or path, status.st_uid, status.st_gid, status.st_mode & 0o7777)


def _with_overrides(
    root: str, groups: list[IommuGroup], alone: list[Device]
) -> tuple[list[IommuGroup], list[Device]]:
    """The same with each device's driver_override. On the running host they are read apart from all the rest, for
    their reading may wait for a device's lock."""
    devices = [device for group in groups for device in group.devices] + alone
    # The driver link gone and VFIO's device still there: the kernel waits for its user, and holds the lock.
    asked = [d for d in devices if d.driver is not None or d.vfio_dev is None]
    paths = [os.path.join(root, "sys/bus", d.bus, "devices", d.address, "driver_override") for d in asked]
    answers = read_all(paths) if root == "/" else [read(path) for path in paths]
    special = {
        device.key: device._replace(locked=True)
        if isinstance(text, Lock)
        else device._replace(driver_override=text)
        for device, text in zip(asked, answers, strict=True)
        if text not in (None, "(null)", "")
    }
    if not special:
        return groups, alone

    def whole(found: Iterable[Device]) -> list[Device]:
        return [special.get(device.key, device) for device in found]

    return [g._replace(devices=tuple(whole(g.devices))) for g in groups], whole(alone)


class _Reader:
    def __init__(self, root: str) -> None:
        self.root = root
        self.nodes = frozenset(names(self.at("dev/vfio")))
        self.has_cdevs = "devices" in self.nodes

    def at(self, relative: str) -> str:
        return os.path.join(self.root, relative)

    def groups(self) -> list[IommuGroup]:
        top = self.at("sys/kernel/iommu_groups")
        found = []
        for name in sorted((n for n in names(top) if n.isdecimal()), key=int):
            try:
                fd = os.open(os.path.join(top, name), _PATH | os.O_DIRECTORY)
            except OSError as error:
                if error.errno in GONE:
                    continue
                raise
            try:
                found.append(self.group(int(name), os.path.join(top, name), fd))
            finally:
                os.close(fd)
        return found

    def group(self, number: int, path: str, fd: int) -> IommuGroup:
        node = None
        for name in (str(number), f"noiommu-{number}"):
            if name in self.nodes:
                node = node_at(self.root, f"/dev/vfio/{name}")
        devices = []
        for link in names(
            f"{path}/devices"
        ):  # by path: listing a file descriptor takes four more system calls
            device = self.device(f"devices/{link}", fd, number)
            if device is not None:
                devices.append(device)
        devices.sort(key=lambda d: d.address)
        regions = read("reserved_regions", fd)
        return IommuGroup(
            number,
            read("name", fd) if is_there("name", fd) else None,
            read("type", fd),
            parse_reserved_regions(regions) if regions else (),
            node,
            tuple(devices),
        )

    def ungrouped(self, known: set[str]) -> list[Device]:
        top = self.at("sys/bus/pci/devices")
        found = []
        for address in names(top):
            if f"pci/{address}" not in known:
                device = self.device(os.path.join(top, address), None, None)
                if device is not None and link_name(os.path.join(top, address, "iommu_group")) is None:
                    found.append(device)
        return found

    def named(self, keys: Iterable[str]) -> list[Device]:
        found = []
        for key in sorted(keys):
            bus, _, address = key.partition("/")
            device = self.device(self.at(f"sys/bus/{bus}/devices/{address}"), None, None)
            if device is not None and device.key == key:
                found.append(device)
        return found

    def device(self, path: str, dir_fd: int | None, group: int | None) -> Device | None:
        try:
            fd = os.open(path, _PATH | os.O_DIRECTORY, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        try:
            return self._device(path, fd, dir_fd, group)
        finally:
            os.close(fd)

    def _device(self, path: str, fd: int, dir_fd: int | None, group: int | None) -> Device:
        modalias = read("modalias", fd)
        pci = parse_pci_modalias(modalias) if modalias and modalias.startswith("pci:") else None
        address = path.rpartition("/")[2]
        if pci is None or address.count(".") != 1:
            # A device whose name another bus has too gets a link with a suffix: the link's target is its name.
            address = link_name(path, dir_fd) or address
        bus = "pci" if pci else link_name("subsystem", fd) or _lost_bus(address)
        driver = link_name("driver", fd)
        vfio_dev = None
        if (driver is not None or group is None or str(group) in self.nodes) and is_there("vfio-dev", fd):
            vfio_dev = next(iter(names("vfio-dev", fd)), None)
        cdev = None
        if vfio_dev is not None and self.has_cdevs:
            cdev = node_at(self.root, f"/dev/vfio/devices/{vfio_dev}")
        return Device(address, bus, group, pci, driver, None, vfio_dev, cdev, modalias=modalias)

    def kernel(self) -> Kernel:
        machine = _machine(self.root)
        # iommufd has a parameter of its own, which counts only where type1 is not there.
        unsafe = [
            read(self.at(f"sys/module/{module}/parameters/allow_unsafe_interrupts"))
            for module in ("vfio_iommu_type1", "iommufd")
        ]
        return Kernel(
            release=os.uname().release if self.root == "/" else read(self.at("proc/sys/kernel/osrelease")),
            machine=machine,
            interrupts_isolated=self.interrupts_isolated(machine),
            unsafe_interrupts_allowed=next((word == "Y" for word in unsafe if word is not None), False),
            iommu_units=tuple(names(self.at("sys/class/iommu"))),
            has_iommufd=os.path.exists(self.at("dev/iommu")) or os.path.isdir(self.at("sys/module/iommufd")),
        )

    def interrupts_isolated(self, machine: str | None) -> bool | None:
        """x86: chip names beginning with IR- mean that interrupt remapping is active; arm64: an ITS isolates, and a
        GICv2 has none; s390 always does and POWER is not asked by VFIO. None: cannot be told from here."""
        if machine is None:
            return None
        if machine.startswith(("s390", "ppc")):
            return True
        text = read(self.at("proc/interrupts"))
        if text is None:
            return None
        if machine in ("x86_64", "i386", "i486", "i586", "i686"):
            return " IR-" in text
        if machine == "aarch64":
            return True if "ITS-" in text else False if re.search(r" GIC(v2|-\d)", text) else None
        return None


def _lost_bus(address: str) -> str:
    """Of a device that its bus has let go, but not yet its driver, for whose users the kernel waits
    (drivers/base/bus.c, bus_remove_device): mediated devices alone are called by a UUID."""
    return "mdev" if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", address) else "unknown"


def _machine(root: str) -> str | None:
    if root == "/":
        return os.uname().machine
    return read(os.path.join(root, "proc/sys/kernel/arch"))
