"""A driver core in miniature: it obeys the rules by which Linux answers writes to sysfs, and knows no answers.

Rules: drivers/base/{bus,dd}.c, drivers/pci/pci-driver.c, drivers/iommu/iommu.c (DMA ownership) and
drivers/vfio. The state is in objects; :class:`~tests.fakes.tree.Tree` shows it as files, which the real reader reads.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.fakes import drivers as available
from tests.fakes import sriov
from tests.fakes.drivers import ANY, FakeDevice, FakeDriver, PciId
from tests.fakes.tree import Tree, alias_of, modalias_of
from vfioctl.errors import DeadlinePassed, KernelRefusal
from vfioctl.model import Access, Device, PciIds
from vfioctl.policy.viability import CLAIMING_BUSES, release_at_least

PAGE = 4096
_WRITABLE = re.compile(
    r"/sys/bus/(?P<bus>[^/]+)/(?:drivers/(?P<driver>[^/]+)/(?P<file>bind|unbind|new_id|remove_id)|(?P<probe>drivers_probe)"
    r"|devices/(?P<address>[^/]+)/(?P<attribute>driver_override|sriov_numvfs))"
)


class FakeKernel:
    """A booted host: devices (by address, on whatever bus), drivers, IOMMU groups, VFIO nodes.

    ``cdevs``: with /dev/vfio/devices. ``owned``: groups that a VFIO user has in a container. ``opened``: addresses
    whose device fd is open. ``probe_errors``: (driver, address) to the errno that the driver's probe fails with.
    ``udev_rules``: what udev makes of a new node, by path. ``writes``: all writes that were asked for.
    """

    def __init__(
        self, root: str, devices: Iterable[FakeDevice], *, release: str = "6.1.0-1-amd64", cdevs: bool = False
    ) -> None:
        self.tree = Tree(os.path.realpath(root))
        self.release = release
        self.cdevs = cdevs
        self.devices: dict[str, FakeDevice] = {}
        self.drivers: dict[str, FakeDriver] = {}
        self.nodes: dict[str, Access] = {}
        self.owned: set[int] = set()
        self.opened: set[str] = set()
        self.probe_errors: dict[tuple[str, str], int] = {}
        self.udev_rules: dict[str, Access] = {}
        self.writes: list[tuple[str, str]] = []
        self.modules = dict(available.modules())
        self.has_type1 = True  # not where iommufd serves the containers
        self._boot()
        for device in devices:
            self.plug(device)
        for driver in available.built_in():
            self.register(driver)

    def _boot(self) -> None:
        tree = self.tree
        tree.put("/proc/sys/kernel/osrelease", f"{self.release}\n")
        tree.put("/proc/sys/kernel/arch", "x86_64\n")
        tree.put("/proc/interrupts", "  1:  9  IR-IO-APIC  1-edge  i8042\n")
        tree.put("/proc/cmdline", "intel_iommu=on\n")
        tree.directory("/sys/class/iommu/dmar0")
        tree.directory("/sys/kernel/iommu_groups")
        tree.directory("/run")
        tree.directory("/dev")
        for bus in CLAIMING_BUSES | {"css", "ap", "mdev"}:
            tree.bus(bus)
        for module, make in self.modules.items():
            self._announce(module, make())

    def install(self, module: str, make: Callable[[], FakeDriver]) -> None:
        """A module comes to the disk, as after depmod."""
        self.modules[module] = make
        self._announce(module, make())

    def _announce(self, module: str, driver: FakeDriver) -> None:
        if release_at_least(self.release, 5, 15):
            lines = [f"alias {alias_of(entry, ANY)} {module}\n" for entry in driver.variant_ids]
            self.tree.append(f"/lib/modules/{self.release}/modules.alias", "".join(lines))

    # --- hot-plug -------------------------------------------------------------------------------

    def plug(self, device: FakeDevice) -> None:
        """A device appears, and drivers may take it."""
        if device.group is not None and not os.path.isdir(
            self.tree.at(f"/sys/kernel/iommu_groups/{device.group}")
        ):
            self.tree.group(device.group, regions="0x00000000fee00000 0x00000000feefffff msi\n")
        if device.pci is not None:
            device.modalias = modalias_of(device.pci)
        shown = Device(
            device.address,
            device.bus,
            device.group,
            device.pci,
            None,
            device.override,
            modalias=device.modalias,
        )
        self.tree.device(shown, device.parent)
        self.devices[device.address] = device
        if device.totalvfs:
            sriov.publish(self, device)
        if device.bus == "mdev":  # created by its parent's driver, which binds it: mdev_device_create
            self._probe(next(driver for driver in self.drivers.values() if driver.bus == "mdev"), device)
        self._attach(device)

    def unplug(self, address: str) -> None:
        """The device is gone, and what is behind it, as after a surprise removal."""
        for behind in [other.address for other in self.devices.values() if other.parent == address]:
            self.unplug(behind)
        sriov.disable(self, self.devices[address])
        device = self.devices.pop(address)
        self._detach(device)
        self.tree.unplug(device.bus, address, device.group)

    # --- drivers --------------------------------------------------------------------------------

    def register(self, driver: FakeDriver) -> None:
        """A driver appears and takes every matching device that has none."""
        if driver.name not in self.drivers:
            self.drivers[driver.name] = driver
            self.tree.driver(driver.bus, driver.name)
            self._driver_attach(driver)

    def load_module(self, name: str) -> None:
        """modprobe NAME or a modalias. Raises KernelRefusal as vfioctl.host.modules does."""
        if ":" in name:
            wanted = [
                m for m, make in self.modules.items() if _answers_to(make(), name, self.devices.values())
            ]
        else:
            there = {*self.modules, "vfio_iommu_type1"} if self.has_type1 else {*self.modules}
            wanted = [m for m in [name.replace("-", "_")] if m in there]
        if not wanted:
            raise KernelRefusal(f"module {name} cannot be loaded: not found", subject=name, code="no-module")
        for module in wanted:
            self.tree.directory(f"/sys/module/{module}")
            if module == "vfio_pci" and not os.path.isdir(self.tree.at("/sys/module/vfio")):
                self.tree.directory("/sys/module/vfio")
                self._add_node("/dev/vfio/vfio", 0o666)
            if module in self.modules:
                driver = self.modules[module]()
                self.register(driver)
                self.tree.directory(f"/sys/module/{module}/drivers/{driver.bus}:{driver.name}")

    def _matches(self, driver: FakeDriver, device: FakeDevice) -> bool:
        """pci_match_device: with an override only the driver of that name matches, and whatever the ids. On other
        buses likewise; mdev_match says no to all."""
        if device.bus != driver.bus or device.bus == "mdev":
            return False
        if device.override is not None:
            return device.override == driver.name
        dynamic = device.pci is not None and any(entry.matches(device.pci) for entry in driver.dynamic)
        return dynamic or driver.knows(device)

    def _claim(self, driver: FakeDriver, device: FakeDevice) -> bool:
        """iommu_device_use_default_domain (5.19 and newer), on the buses that call it and heed it."""
        modern = release_at_least(self.release, 5, 19) and device.bus in CLAIMING_BUSES - {"cdx"}
        return driver.managed_dma or device.group not in self.owned or not modern

    def _probe(self, driver: FakeDriver, device: FakeDevice) -> int:
        """Binds, or answers the errno of the driver's probe."""
        number = self.probe_errors.get((driver.name, device.address)) or driver.probe(device)
        if number == 0:
            device.driver = driver.name
            self.tree.bind(device.bus, device.address, driver.name)
            if driver.vfio:
                self._vfio_register(device)
            if driver.offers:
                self._offer(device, *driver.offers)
            for child in device.children:  # vfio_fsl_mc_bus_notifier steers the objects that are found
                self.plug(
                    replace(child, parent=device.address, override=driver.name if driver.vfio else None)
                )
        return number

    def _attach(self, device: FakeDevice) -> bool:
        """device_attach: the first matching driver whose probe succeeds; False when the core refuses."""
        for driver in list(self.drivers.values()):
            if device.driver is None and self._matches(driver, device):
                if not self._claim(driver, device):
                    return False
                self._probe(driver, device)
        return True

    def _driver_attach(self, driver: FakeDriver) -> None:
        for device in list(self.devices.values()):
            if device.driver is None and self._matches(driver, device) and self._claim(driver, device):
                self._probe(driver, device)

    def _detach(self, device: FakeDevice) -> None:
        if device.driver is None:
            return
        driver = self.drivers[device.driver]
        for child in device.children:
            self.unplug(child.address)
        self.tree.unbind(device.bus, device.address, driver.name)
        device.driver = None
        if device.address in self.opened:  # vfio_unregister_group_dev waits; the link is gone already
            raise DeadlinePassed(f"{device.address} is in use")
        if driver.offers:
            self._withdraw(device, driver.offers[0])
        if driver.vfio:
            self._vfio_unregister(device)

    def let_go(self, address: str) -> None:
        """The user of a device that is being unbound ends: the kernel goes on."""
        self.opened.discard(address)
        self._vfio_unregister(self.devices[address])

    # --- what drivers make of devices -----------------------------------------------------------

    def _vfio_register(self, device: FakeDevice) -> None:
        numbers = {d.vfio_number for d in self.devices.values()}
        device.vfio_number = next(n for n in range(len(numbers) + 1) if n not in numbers)
        name = f"vfio{device.vfio_number}"
        if release_at_least(self.release, 6, 1):
            self.tree.vfio_dev(device.bus, device.address, name)
        if self.cdevs:
            self._add_node(f"/dev/vfio/devices/{name}", 0o600)
        if f"/dev/vfio/{device.group}" not in self.nodes:
            self._add_node(f"/dev/vfio/{device.group}", 0o600)

    def _vfio_unregister(self, device: FakeDevice) -> None:
        name = f"vfio{device.vfio_number}"
        if release_at_least(self.release, 6, 1):
            self.tree.remove(f"{self.tree.homes[device.bus, device.address]}/vfio-dev")
        device.vfio_number = None
        if self.cdevs:
            self._remove_node(f"/dev/vfio/devices/{name}")
        members = [d for d in self.devices.values() if d.group == device.group]
        if all(member.vfio_number is None for member in members):
            self._remove_node(f"/dev/vfio/{device.group}")

    def _add_node(self, path: str, mode: int) -> None:
        self.tree.node(path)
        self.nodes[path] = Access(0, 0, mode)

    def _remove_node(self, path: str) -> None:
        self.tree.unlink(path)
        del self.nodes[path]

    def _offer(self, device: FakeDevice, kind: str, pattern: str) -> None:
        names = (pattern.replace("%d", str(number)) for number in range(len(self.devices)))
        name = next(n for n in names if not os.path.lexists(self.tree.at(f"/sys/class/{kind}/{n}")))
        home = f"{self.tree.homes[device.bus, device.address]}/{kind}/{name}"
        self.tree.directory(home)
        self.tree.link(f"/sys/class/{kind}/{name}", home)

    def _withdraw(self, device: FakeDevice, kind: str) -> None:
        top = f"{self.tree.homes[device.bus, device.address]}/{kind}"
        for name in os.listdir(self.tree.at(top)):
            self.tree.unlink(f"/sys/class/{kind}/{name}")
        self.tree.remove(top)

    def settle_udev(self) -> None:
        """udev handles the nodes that its rules are about, once each."""
        for path in list(self.udev_rules):
            if path in self.nodes:
                self.nodes[path] = self.udev_rules.pop(path)

    # --- sysfs ----------------------------------------------------------------------------------

    def write(self, path: str, data: str) -> None:
        """One write(2). Raises OSError with the kernel's errno."""
        self.writes.append((path, data))
        match = _WRITABLE.fullmatch(path)
        if match is None or not os.path.exists(self.tree.at(path)):
            raise _error(errno.ENOENT, path)
        number = self._answer(match, data)
        if number:
            raise _error(number, path)

    def _answer(self, match: re.Match[str], data: str) -> int:
        if match["address"]:
            device = self.devices[match["address"]]
            if match["attribute"] == "sriov_numvfs":
                return sriov.store(self, device, data)
            return self._override(device, data)
        if match["probe"]:
            return self._drivers_probe(match["bus"], data)
        driver = self.drivers[match["driver"]]
        answers: dict[str, Callable[[FakeDriver, str], int]] = {
            "bind": self._bind,
            "unbind": self._unbind,
            "new_id": self._new_id,
            "remove_id": self._remove_id,
        }
        return answers[match["file"]](driver, data)

    def _override(self, device: FakeDevice, data: str) -> int:
        if len(data) >= PAGE:
            return errno.EINVAL
        if data:  # a write of nothing does nothing
            device.override = data.partition("\n")[0] or None
            self.tree.override(device.bus, device.address, device.override)
        return 0

    def _named(self, bus: str, data: str) -> FakeDevice | None:
        """sysfs_streq: one trailing newline does not matter, anything else does."""
        device = self.devices.get(data.removesuffix("\n"))
        return device if device is not None and device.bus == bus else None

    def _bind(self, driver: FakeDriver, data: str) -> int:
        device = self._named(driver.bus, data)
        if device is None or not self._matches(driver, device):
            return errno.ENODEV
        number = errno.EBUSY
        if device.driver is None and self._claim(driver, device):
            number = self._probe(driver, device)
        # Until 5.13 every failure was ENODEV.
        return errno.ENODEV if number and not release_at_least(self.release, 5, 14) else number

    def _unbind(self, driver: FakeDriver, data: str) -> int:
        device = self._named(driver.bus, data)
        if device is None or device.driver != driver.name:
            return errno.ENODEV
        self._detach(device)
        return 0

    def _drivers_probe(self, bus: str, data: str) -> int:
        device = self._named(bus, data)
        if device is None:
            return errno.ENODEV
        return 0 if device.driver is not None or self._attach(device) else errno.EINVAL

    def _new_id(self, driver: FakeDriver, data: str) -> int:
        fields = _scan(data)
        if len(fields) < 2 or (len(fields) == 7 and fields[6] != 0):
            return errno.EINVAL
        entry = PciId(*fields[:6])
        example = _example(entry)
        if any(known.matches(example) for known in (*driver.ids, *driver.dynamic)):
            return errno.EEXIST
        driver.dynamic.append(entry)
        self._driver_attach(driver)
        return 0

    def _remove_id(self, driver: FakeDriver, data: str) -> int:
        fields = _scan(data)
        if len(fields) < 2:
            return errno.EINVAL
        wanted = PciId(*fields[:6])
        for entry in driver.dynamic:
            same = entry[:2] == wanted[:2] and all(
                theirs in (ANY, mine) for mine, theirs in zip(entry[2:4], wanted[2:4], strict=True)
            )
            if same and not ((entry.class_ ^ wanted.class_) & wanted.class_mask):
                driver.dynamic.remove(entry)
                return 0
        return errno.ENODEV


def _example(entry: PciId) -> PciIds:
    """The device that new_id_store makes up to see whether the driver knows it already."""
    return PciIds(f"{entry.class_:06x}", *(f"{number:04x}" for number in entry[:4]))


def _scan(data: str) -> list[int]:
    """``sscanf("%x %x %x %x %x %x %lx")``: the fields up to the first that does not parse."""
    fields: list[int] = []
    for word in data.split()[:7]:
        match = re.match(r"(0x)?[0-9a-fA-F]+", word)
        if match is None:
            break
        fields.append(int(match[0], 16))
        if match.end() != len(word):
            break
    return fields


def _answers_to(driver: FakeDriver, modalias: str, devices: Iterable[FakeDevice]) -> bool:
    return any(driver.knows(device) for device in devices if device.modalias == modalias)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
