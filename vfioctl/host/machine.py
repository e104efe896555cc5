"""The running host as the changing commands see it. A fake host overrides what touches the kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from vfioctl.host import bounded, kernel_write, modules
from vfioctl.host.acl import read_acl, remove_acl, write_acl
from vfioctl.host.files import link_name, names, read
from vfioctl.host.holders import VFIO_KINDS, Found, Holder, being_changed, being_unbound, find_holders
from vfioctl.host.leases import Leases
from vfioctl.host.locked import PATIENCE, Lock, read_all
from vfioctl.host.reader import read_snapshot, stat_node
from vfioctl.host.state import StateDirectory
from vfioctl.model import VFIO_DRIVERS, Access, Binding, ModuleAlias, SetAccess, Snapshot, Step, Use

if TYPE_CHECKING:
    from vfioctl.host.accounts import Account
    from vfioctl.host.child import Command
    from vfioctl.host.udev import NodeWatch, Uevents

#: Bytes of configuration space that every PCI device has, and anybody may read.
_HEADER = 64


class Machine:
    """Reads and writes one host. ``timeout`` bounds each write, in seconds."""

    root = "/"

    def __init__(self, *, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.state = StateDirectory(self.at("/run/vfioctl"))
        self.leases = Leases(self.state)
        self.steps = 0
        #: Devices (bus/address) that are looked for although they may be in no group and off PCI.
        self.named: Collection[str] = ()

    def at(self, path: str) -> str:
        """Where the absolute ``path`` of the host is."""
        return path if self.root == "/" else os.path.join(self.root, path.lstrip("/"))

    @property
    def dev(self) -> str:
        """The directory of the device nodes."""
        return self.at("/dev")

    def snapshot(self) -> Snapshot:
        """All groups, and all devices that are in one, on PCI, or ``named``."""
        return read_snapshot(self.root, ungrouped=True, named=self.named)

    def binding(self, key: str) -> Binding | None:
        """Driver, override and virtual functions of a device now; None when the device is gone. Raises Busy while the
        kernel waits for the device's user to let go, or holds the device's lock for another reason."""
        bus, _, address = key.partition("/")
        top = self.at(f"/sys/bus/{bus}/devices/{address}")
        if not os.path.isdir(top):
            return None
        driver = link_name(f"{top}/driver")
        if driver is None and (os.path.isdir(f"{top}/vfio-dev") or self._node_lingers(top)):
            raise being_unbound(address, self.device_holders(key))
        override, numvfs = self.read_locked([f"{top}/driver_override", f"{top}/sriov_numvfs"])
        if isinstance(override, Lock) or isinstance(numvfs, Lock):
            raise being_changed(address)
        return Binding(
            driver,
            None if override in ("(null)", "") else override,
            int(numvfs) if numvfs and numvfs.isdecimal() else None,
        )

    def _node_lingers(self, top: str) -> bool:
        """Whether the group of the device ``top`` has a node although no member has a VFIO driver: the kernel is still
        taking one away (policy.viability.is_being_unbound, but for one device)."""
        group = link_name(f"{top}/iommu_group")
        if not any(os.path.exists(self.at(f"/dev/vfio/{name}")) for name in (group, f"noiommu-{group}")):
            return False
        members = self.at(f"/sys/kernel/iommu_groups/{group}/devices")
        return not any(
            (driver := link_name(f"{members}/{name}/driver")) is not None
            and (driver in VFIO_DRIVERS or os.path.isdir(f"{members}/{name}/vfio-dev"))
            for name in names(members)
        )

    def read_locked(self, paths: Sequence[str]) -> list[str | Lock | None]:
        """The text of files whose reading may wait for the device's lock."""
        return read_all(paths, min(PATIENCE, self.timeout))

    def identity(self, key: str) -> str | None:
        """What tells this device from another one at the same address: its modalias."""
        bus, _, address = key.partition("/")
        return read(self.at(f"/sys/bus/{bus}/devices/{address}/modalias"))

    def access(self, path: str) -> Access | None:
        """Owner, mode and ACL of a node now; None when it is not there."""
        node = stat_node(self.at(path))
        return None if node is None else Access(node.uid, node.gid, node.mode, read_acl(self.at(path)))

    def node_members(self) -> dict[str, tuple[str, ...]]:
        """The devices (keys) that each node is of: its group's, or a cdev's one."""
        found = {}
        for group in self.snapshot().groups:
            if group.node is not None:
                found[group.node.path] = tuple(device.key for device in group.devices)
            found.update({d.cdev.path: (d.key,) for d in group.devices if d.cdev is not None})
        return found

    def has_driver(self, bus: str, driver: str) -> bool:
        """Whether the driver is registered on the bus."""
        return os.path.isdir(self.at(f"/sys/bus/{bus}/drivers/{driver}"))

    def is_vfio_driver(self, driver: str) -> bool:
        """Whether a driver is one of VFIO's: known by name, or a variant by the ``vfio_pci:`` alias of its module."""
        module = link_name(self.at(f"/sys/bus/pci/drivers/{driver}/module")) or driver.replace("-", "_")
        return driver in VFIO_DRIVERS or any(alias.module == module for alias in self.variant_aliases)

    @property
    def release(self) -> str:
        """The release of the running kernel, after which its modules' directory is called."""
        return read(self.at("/proc/sys/kernel/osrelease")) or ""

    @cached_property
    def variant_aliases(self) -> list[ModuleAlias]:
        """The aliases by which modules announce that they have a VFIO driver for certain PCI devices."""
        return modules.aliases(self.root, self.release, "vfio_pci:")

    def drivers_of(self, module: str, bus: str) -> list[str]:
        """The drivers that a module has registered on a bus; a module that is built in has them too."""
        prefix = f"{bus}:"
        entries = names(self.at(f"/sys/module/{module}/drivers"))
        return [entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)]

    def offers(self, key: str) -> list[str]:
        """Which ways to share the device its driver offers: mdev's, or NVIDIA's since it left mdev."""
        bus, _, address = key.partition("/")
        top = self.at(f"/sys/bus/{bus}/devices/{address}")
        ways = ("mdev_supported_types", "nvidia/creatable_vgpu_types")
        return [way for way in ways if os.path.exists(f"{top}/{way}")]

    def parent(self, key: str) -> str:
        """The name of the device above this one."""
        bus, _, address = key.partition("/")
        path = os.path.realpath(self.at(f"/sys/bus/{bus}/devices/{address}"))
        return os.path.basename(os.path.dirname(path))

    def missing_reset(self, key: str) -> str | None:
        """The ``compatible`` of a platform device for which vfio-platform wants a reset that no module has; None when
        it has one or wants none, and when that cannot be known before (ACPI: the table may have _RST)."""
        bus, _, address = key.partition("/")
        if not self.is_switched_on("vfio_platform", "reset_required"):
            return None
        listed = read(self.at(f"/sys/bus/{bus}/devices/{address}/of_node/compatible"))
        compatible = (listed or "").partition("\0")[0]  # the driver asks for the first only
        alias = f"vfio-reset:{compatible}"
        if not compatible or any(
            pattern == alias for pattern, _ in modules.aliases(self.root, self.release, alias)
        ):
            return None
        return compatible

    def virtual_functions(self, key: str) -> list[str]:
        """The keys of the device's virtual functions."""
        bus, _, address = key.partition("/")
        top = self.at(f"/sys/bus/{bus}/devices/{address}")
        links = [link_name(f"{top}/{name}") for name in names(top) if name.startswith("virtfn")]
        return [f"{bus}/{name}" for name in links if name is not None]

    def mediated_devices(self, key: str) -> list[str]:
        """The keys of the mediated devices that the device's driver has made of it."""
        from vfioctl.host.usage.functions import mediated_of

        bus, _, address = key.partition("/")
        return [f"mdev/{uuid}" for uuid in mediated_of(self.at(f"/sys/bus/{bus}/devices/{address}"))]

    def is_switched_on(self, module: str, parameter: str) -> bool:
        """Whether a module has a parameter that is on."""
        return read(self.at(f"/sys/module/{module}/parameters/{parameter}")) in ("Y", "1")

    def takes_vf_token(self, key: str) -> bool:
        """Whether a VF token can be given when the device is opened: it is a physical function, or a virtual one whose
        physical function is VFIO's (drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token)."""
        bus, _, address = key.partition("/")
        top = self.at(f"/sys/bus/{bus}/devices/{address}")
        if not os.path.isdir(f"{top}/physfn"):
            return os.path.exists(f"{top}/sriov_totalvfs")
        return os.path.isdir(f"{top}/physfn/vfio-dev") or link_name(f"{top}/physfn/driver") == "vfio-pci"

    def noiommu_enabled(self) -> bool:
        """Whether VFIO takes devices without an IOMMU, in the unsafe no-IOMMU mode."""
        return self.is_switched_on("vfio", "enable_unsafe_noiommu_mode")

    def has_module(self, name: str) -> bool:
        """Whether a module is loaded (or built in with parameters)."""
        return os.path.isdir(self.at(f"/sys/module/{name.replace('-', '_')}"))

    def is_there(self, key: str) -> bool:
        """Whether the device is on its bus."""
        bus, _, address = key.partition("/")
        return os.path.isdir(self.at(f"/sys/bus/{bus}/devices/{address}"))

    def has_override(self, key: str) -> bool:
        """Whether the device can be steered by driver_override at all."""
        bus, _, address = key.partition("/")
        return os.path.exists(self.at(f"/sys/bus/{bus}/devices/{address}/driver_override"))

    def uses(self, keys: Sequence[str]) -> dict[str, tuple[Use, ...]]:
        """What the host uses the devices for, judged together; see vfioctl.host.usage."""
        from vfioctl.host.usage import uses_of

        return uses_of(self.root, keys, self.timeout)

    def is_mute(self, key: str) -> bool:
        """Whether a PCI device answers with ones only, or not at all: all of its header, for the first words of a
        virtual function's are ones by the standard (PCI Express 6.0, 9.3.4)."""
        bus, _, address = key.partition("/")
        path = self.at(f"/sys/bus/{bus}/devices/{address}/config")
        if not os.path.exists(path):
            return False

        def look() -> bytes:
            with open(path, "rb", buffering=0) as file:
                return file.read(_HEADER)

        try:
            return bounded.call(look, min(PATIENCE, self.timeout)) == b"\xff" * _HEADER
        except bounded.Expired:
            return True
        except OSError:  # forbidden, or gone meanwhile
            return False

    def apply(self, step: Step) -> None:
        """Does one step. Raises OSError with the kernel's errno, or DeadlinePassed."""
        if isinstance(step, SetAccess):
            self.set_access(step.path, step.access)
        else:
            self.write(step.path, step.data)
        self.steps += 1

    def write(self, path: str, data: str) -> None:
        """One write(2) to a sysfs file, bounded by the deadline."""
        kernel_write.write(self.at(path), data, self.timeout)

    def set_access(self, path: str, access: Access) -> None:
        """chown and chmod; the mode after the owner, for chown clears bits of it, and after the removal of an ACL, for
        that makes the list's mask the mode. A list that is set brings the mode with it."""
        here = self.at(path)
        os.chown(here, access.uid, access.gid, follow_symlinks=False)
        if access.acl is None:
            remove_acl(here)
        os.chmod(here, access.mode)
        if access.acl is not None:
            write_acl(here, access.acl)

    def claiming_drivers(self, key: str) -> list[str]:
        """The registered drivers whose modules claim the device by its modalias."""
        bus, _, _ = key.partition("/")
        modalias = self.identity(key)
        found = []
        for module in modules.claimants(modalias, self.timeout) if modalias else []:
            found += self.drivers_of(module, bus)
        return found

    def load_module(self, name: str) -> None:
        """modprobe. Raises KernelRefusal or DeadlinePassed."""
        modules.modprobe(name, self.timeout)

    def watch_nodes(self) -> NodeWatch:
        """Starts listening for udev, before nodes are made."""
        from vfioctl.host.udev import NodeWatch

        return NodeWatch()

    def uevents(self, reader: int | None = None) -> Uevents:
        """Starts listening for the kernel's events."""
        from vfioctl.host.udev import Uevents

        return Uevents(reader)

    def settle(self, paths: list[str], timeout: float | None = None) -> bool:
        """Waits until udev has done with existing nodes; whether it has, within the deadline."""
        from vfioctl.host import udev

        return udev.settle(paths, self.timeout if timeout is None else timeout)

    def find_holders(self, keys: Iterable[str]) -> Found:
        """The processes that hold nodes of the devices, in one look at all processes."""
        return find_holders(keys, self.timeout)

    def interfaces_up(self, keys: Sequence[str]) -> list[Holder]:
        """The network interfaces of the devices that are up and have an address, as holders without a process."""
        from vfioctl.host.holders.interfaces import interfaces_up

        return interfaces_up(self.root, keys)

    def holders(self, path: str, key: str) -> list[Holder]:
        """The processes that have the group node ``path`` open, or the device itself."""
        return self.device_holders(key)

    def device_holders(self, key: str) -> list[Holder]:
        """The processes that hold the device through VFIO, or may hold it."""
        return [holder for holder in self.find_holders([key]).holders if holder.kind in VFIO_KINDS]

    def is_held(self, path: str) -> bool:
        """Whether a group node is open somewhere. Raises OSError when no process can be started to look."""
        return self.opening(path) == errno.EBUSY

    def opening(self, path: str) -> int:
        """What comes of opening a group's node for an instant, as an errno, 0 when it can be opened. It admits one
        opener (EBUSY). Opening takes the group's lock, and whoever holds that for long uses the group
        (drivers/vfio/group.c). Raises OSError when no process can be started to look."""

        def look() -> int:
            try:
                os.close(os.open(self.at(path), os.O_RDWR | os.O_CLOEXEC))
            except OSError as error:
                return error.errno or 0
            return 0

        try:
            return bounded.call(look, min(PATIENCE, self.timeout))
        except bounded.Expired:
            return errno.EBUSY

    def find_command(self, word: str, search: str, account: Account | None, memlock: int | None) -> str:
        """The path of a command as the user sees it. Raises OSError or bounded.Expired."""
        from vfioctl.host import child

        return child.find(word, search, account, memlock, self.timeout)

    def execute(self, command: Command) -> int:
        """Runs a command to its end: its status as shells count. Raises OSError when it cannot be executed."""
        from vfioctl.host import child

        return child.execute(command)
