"""Immutable facts about a host: what is, what is wanted, and a step between the two (floor 0).

Names are the kernel's. NamedTuple rather than dataclass: half the start-up cost, and immutable. No ``from __future__
import annotations`` here, for NamedTuple compiles every annotation that is a string.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

#: Drivers that register their devices with VFIO, by ``struct device_driver.name``.
VFIO_DRIVERS = frozenset(
    {
        "vfio-pci", "mlx5_vfio_pci", "hisi_acc_vfio_pci", "pds_vfio_pci", "qat_vfio_pci", "virtio_vfio_pci",
        "nvgrace_gpu_vfio_pci", "xe-vfio-pci", "ism_vfio_pci", "vfio-platform", "vfio-amba", "vfio-fsl-mc",
        "vfio-cdx", "vfio_mdev", "vfio_ccw", "vfio_ap",
    }
)  # fmt: skip


class Node(NamedTuple):
    """A device node: ``mode`` holds the permission bits only."""

    path: str
    uid: int
    gid: int
    mode: int


class ReservedRegion(NamedTuple):
    """A line of ``reserved_regions``: IOVAs ``start`` to ``end`` (inclusive)."""

    start: int
    end: int
    type: str


class PciIds(NamedTuple):
    """Hexadecimal digits as sysfs prints them, without 0x; ``class_`` has six digits."""

    class_: str
    vendor: str
    device: str
    subsystem_vendor: str
    subsystem_device: str


class Device(NamedTuple):
    """A device as the driver core shows it; ``address`` is its name on its ``bus``."""

    address: str
    bus: str
    group: int | None = None
    pci: PciIds | None = None
    driver: str | None = None
    driver_override: str | None = None
    vfio_dev: str | None = None
    cdev: Node | None = None
    modalias: str | None = None
    #: The kernel holds the device's lock, so its override cannot be read: a driver is being bound, unbound or reset.
    locked: bool = False

    @property
    def key(self) -> str:
        """``bus/address``: unique on the host (addresses alone are only unique on their bus)."""
        return f"{self.bus}/{self.address}"

    @property
    def is_bridge(self) -> bool:
        """A PCI-to-PCI or CardBus bridge (header type 1 or 2), which no VFIO driver accepts."""
        return self.pci is not None and self.pci.class_[:4] in ("0604", "0607", "0609")

    @property
    def is_container_child(self) -> bool:
        """An object in a DPRC, the container that VFIO takes as a whole: it goes where its container goes."""
        return self.bus == "fsl-mc" and not self.address.startswith("dprc.")


class IommuGroup(NamedTuple):
    """``/sys/kernel/iommu_groups/ID`` with its members and its node under /dev/vfio."""

    id: int
    name: str | None = None
    type: str | None = None
    reserved_regions: tuple[ReservedRegion, ...] = ()
    node: Node | None = None
    devices: tuple[Device, ...] = ()

    @property
    def is_noiommu(self) -> bool:
        """A fake group made by no-IOMMU mode. (A mediated device's fake group has an ordinary node.)"""
        return self.node is not None and self.node.path.rpartition("/")[2].startswith("noiommu-")


class Kernel(NamedTuple):
    """What viability depends on besides the devices; None where it could not be learnt."""

    release: str | None = None
    machine: str | None = None
    interrupts_isolated: bool | None = None
    unsafe_interrupts_allowed: bool = False
    iommu_units: tuple[str, ...] = ()
    has_iommufd: bool = False
    has_vfio_dev: bool = False


class Snapshot(NamedTuple):
    """Groups by id, devices by (group, address)."""

    kernel: Kernel
    groups: tuple[IommuGroup, ...]
    devices: tuple[Device, ...]


class Platform(NamedTuple):
    """Evidence on whether there is an IOMMU and whether it is on; see policy.diagnosis."""

    machine: str | None
    cmdline: str
    firmware_tables: tuple[str, ...]
    iommu_units: tuple[str, ...]
    sysfs_mounted: bool
    groups_directory: bool


class Unread(Enum):
    """Why a file has given nothing: three answers that are not the same."""

    ABSENT = "absent"
    FORBIDDEN = "forbidden"
    FAILED = "unreadable"


class Readings(NamedTuple):
    """Files of a host as they were read, by the absolute paths that they have there; ``modules``: built-in, loaded,
    available or missing; None where that cannot be told. See vfioctl.host.readings for which."""

    texts: Mapping[str, str | Unread] = {}
    nodes: Mapping[str, Node | Unread] = {}
    modules: Mapping[str, str | None] = {}

    def text(self, path: str) -> str | None:
        """What the file has in it; None when nothing could be read of it."""
        found = self.texts.get(path, Unread.ABSENT)
        return None if isinstance(found, Unread) else found

    def why(self, path: str) -> Unread | None:
        """Why nothing could be read of it; None when something was."""
        found = self.texts.get(path, Unread.ABSENT)
        return found if isinstance(found, Unread) else None


class LockLimit(NamedTuple):
    """How much memory somebody may lock: ``soft`` and ``hard`` limit in bytes (None: unlimited), of which ``charged``
    is taken; ``exempt``: CAP_IPC_LOCK makes it void. ``path`` and ``value``: what says so."""

    who: str
    soft: int | None
    hard: int | None
    path: str
    value: str
    charged: int = 0
    exempt: bool = False


class Login(NamedTuple):
    """A user as pam_limits sees one: ``groups`` by name and number, the user's own first."""

    name: str
    uid: int
    groups: tuple[tuple[str, int], ...]


class ModuleAlias(NamedTuple):
    """A line of modules.alias: a pattern as of fnmatch, and the module that it stands for (with _ for -)."""

    pattern: str
    module: str


class PciLink(NamedTuple):
    """A link of PCI Express: speeds as sysfs words them (``8.0 GT/s PCIe``), widths in lanes; None: not known."""

    speed: str | None
    width: int | None
    max_speed: str | None
    max_width: int | None


class PciFunction(NamedTuple):
    """A PCI function in its place in the hierarchy.

    ``path``: its directory below /sys/devices, from the host bridge on (``pci0000:00/0000:00:1c.0/0000:01:00.0``).
    ``config``: its configuration space, as many bytes as the kernel lets the caller read: 256 or 4096 for root, 64 for
    others, none when there is no such file or the function is asleep. ``ids`` are the kernel's, which a VF's
    configuration space does not tell.
    """

    address: str
    path: str
    ids: PciIds
    config: bytes = b""
    group: int | None = None
    driver: str | None = None
    physfn: str | None = None
    #: Words of ``removable``: fixed, removable, unknown; None where the platform does not say.
    removable: str | None = None
    #: Neither configuration space nor link have been read, for that would have woken it or the bridge above.
    asleep: bool = False
    link: PciLink | None = None

    @property
    def parent(self) -> str | None:
        """The bridge above; None on a root bus."""
        above = self.path.rpartition("/")[0].rpartition("/")[2]
        return None if not above or above.startswith("pci") else above

    @property
    def root_bus(self) -> str:
        """The root bus that it is below: ``pci0000:00``. One of a VMD domain lies itself below a function."""
        above = (part for part in reversed(self.path.split("/")) if part.startswith("pci"))
        return next(above, f"pci{self.bus}")

    @property
    def domain_owner(self) -> str | None:
        """The function whose driver made the domain (a VMD endpoint); None in a domain of the platform."""
        before, _, _ = self.path.partition(f"/{self.root_bus}/")
        return before.rpartition("/")[2] if self.root_bus in self.path.split("/")[1:] else None

    @property
    def bus(self) -> str:
        """Domain and bus, ``0000:01``."""
        return self.address.rpartition(":")[0]

    @property
    def slot(self) -> int:
        """The number of the slot, 0 to 31."""
        return int(self.address.rpartition(":")[2].partition(".")[0], 16)

    @property
    def function(self) -> int:
        """The number of the function, 0 to 7."""
        return int(self.address[-1])


class IommuUnit(NamedTuple):
    """An entry of /sys/class/iommu, and the driver of the device that it belongs to (VT-d's and AMD-Vi's have none)."""

    name: str
    driver: str | None = None


class Use(NamedTuple):
    """Something that the host uses a device for; ``guard`` is the name of the guard that protects it.

    One that does not refuse is a warning. ``driver``: the driver for which another tool claims the device.
    """

    guard: str
    evidence: str
    refuses: bool = True
    driver: str | None = None


class Look(NamedTuple):
    """A file that shows the cause of a failure; ``*`` in its path stands for any name.

    ``lines``: a regular expression for those of its lines that do; None: all. ``access``: its owner and mode do.
    """

    file: str
    lines: str | None = None
    access: bool = False


class Evidence(NamedTuple):
    """What a file says, or what a link points to, or who owns a node."""

    file: str
    value: str


# --- changing -----------------------------------------------------------------------------------


class KernelChoice(Enum):
    """The goal "whatever driver the kernel picks"."""

    DRIVER = "kernel's choice"


KERNELS_CHOICE: Final = KernelChoice.DRIVER


def shown(key: str) -> str:
    """How a command names the device ``bus/address``: off PCI with its bus."""
    return key.removeprefix("pci/")


class Binding(NamedTuple):
    """Which driver a device has, which ``driver_override``, and how many virtual functions (``sriov_numvfs``; None for
    a device that cannot have any); as text, in words."""

    driver: str | None
    driver_override: str | None = None
    numvfs: int | None = None

    def __str__(self) -> str:
        driver = "no driver" if self.driver is None else f"driver {self.driver}"
        override = "no override" if self.driver_override is None else f"override {self.driver_override}"
        return f"{driver}, {override}" + (f", {self.numvfs} virtual functions" if self.numvfs else "")


class BindingGoal(NamedTuple):
    """Where a device is to be.

    ``steer``: point driver_override at the wanted driver on the way (the new_id method does without).
    ``leaving``: with KERNELS_CHOICE, the driver that the device must not keep. ``numvfs``: how many virtual functions
    it is to have; None: as it comes.
    """

    driver: str | KernelChoice | None
    driver_override: str | None = None
    steer: bool = True
    leaving: str | None = None
    numvfs: int | None = None

    @classmethod
    def back_to(cls, then: Binding) -> "BindingGoal":
        """The goal of being as it was."""
        return cls(then.driver, then.driver_override, numvfs=then.numvfs)

    def reached(self, now: Binding) -> bool:
        """Whether ``now`` is what was wanted."""
        if now.driver_override != self.driver_override or self.numvfs not in (None, now.numvfs):
            return False
        if self.driver is KERNELS_CHOICE:
            return self.leaving is None or now.driver != self.leaving
        return now.driver == self.driver


class DynamicId(NamedTuple):
    """An id given to a PCI driver through ``new_id``: ``fields`` is what is written, to ``remove_id`` as well."""

    driver: str
    fields: str


class Access(NamedTuple):
    """Owner, group and permission bits of a device node, and its access control list if it has one (see host.acl);
    as text, in words."""

    uid: int
    gid: int
    mode: int
    acl: str | None = None

    def __str__(self) -> str:
        return f"owner {self.uid}:{self.gid}, mode {self.mode:04o}" + (
            f", ACL {self.acl}" if self.acl else ""
        )


class State(NamedTuple):
    """The changeable state of some devices (by key) and nodes (by path)."""

    bindings: Mapping[str, Binding]
    access: Mapping[str, Access]


class Write(NamedTuple):
    """One write(2) of ``data`` to the sysfs file ``path``."""

    path: str
    data: str


class SetAccess(NamedTuple):
    """chown and chmod of a node, and its access control list set or removed."""

    path: str
    access: Access


Step = Write | SetAccess
