"""Drivers of the imitated kernel: which devices they match, and what their probe answers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vfioctl.model import PciIds

ANY = 0xFFFFFFFF


class PciId(NamedTuple):
    """``struct pci_device_id``."""

    vendor: int = ANY
    device: int = ANY
    subvendor: int = ANY
    subdevice: int = ANY
    class_: int = 0
    class_mask: int = 0

    def matches(self, pci: PciIds) -> bool:
        """pci_match_one_device in drivers/pci/pci.h."""
        pairs = (
            (self.vendor, pci.vendor),
            (self.device, pci.device),
            (self.subvendor, pci.subsystem_vendor),
            (self.subdevice, pci.subsystem_device),
        )
        same = all(mine in (ANY, int(theirs, 16)) for mine, theirs in pairs)
        return same and not ((self.class_ ^ int(pci.class_, 16)) & self.class_mask)


@dataclass
class FakeDevice:
    """A device and its changeable state. ``pcie_port``, ``shpc``: what pcieport and shpchp look for. ``resettable``:
    by a driver of vfio-platform's. ``children``: what a driver of the device finds in it (a DPRC). ``totalvfs``,
    ``numvfs``: the virtual functions that it can have, and has."""

    address: str
    pci: PciIds | None
    group: int | None = None
    parent: str | None = None
    pcie_port: bool = False
    shpc: bool = False
    driver: str | None = None
    override: str | None = None
    vfio_number: int | None = None
    bus: str = "pci"
    modalias: str | None = None
    resettable: bool = False
    children: tuple[FakeDevice, ...] = ()
    totalvfs: int = 0
    numvfs: int = 0

    @property
    def is_bridge(self) -> bool:
        return self.pci is not None and self.pci.class_[:4] in ("0604", "0607")


@dataclass
class FakeDriver:
    """A driver. ``ids`` on PCI and ``names`` (modaliases) off it are what it matches; ``variant_ids`` match with
    driver_override only. ``probe`` answers 0 or an errno; ``managed_dma``: it claims no DMA for the kernel;
    ``sriov``: it can make virtual functions."""

    name: str
    ids: tuple[PciId, ...] = ()
    names: tuple[str, ...] = ()
    variant_ids: tuple[PciId, ...] = ()
    bus: str = "pci"
    managed_dma: bool = False
    sriov: bool = False
    vfio: bool = False
    probe: Callable[[FakeDevice], int] = lambda device: 0
    #: Class and name of what it makes of a device: a network interface, a block device.
    offers: tuple[str, str] | None = None
    dynamic: list[PciId] = field(default_factory=list)

    def knows(self, device: FakeDevice) -> bool:
        """Whether the device has one of the ids that it was built with."""
        if device.pci is None:
            return device.modalias in self.names
        return any(entry.matches(device.pci) for entry in self.ids)


def _vfio(name: str, bus: str, probe: Callable[[FakeDevice], int] | None = None) -> FakeDriver:
    return FakeDriver(name, bus=bus, managed_dma=True, vfio=True, probe=probe or _vfio_probe)


def _only(wanted: Callable[[FakeDevice], bool]) -> Callable[[FakeDevice], int]:
    return lambda device: 0 if wanted(device) else errno.ENODEV


def _vfio_probe(device: FakeDevice) -> int:
    """vfio_pci_core_register_device: no bridge, a group, and no virtual functions that somebody else has made."""
    if device.numvfs:
        return errno.EBUSY
    return errno.EINVAL if device.is_bridge or device.group is None else 0


def _vfio_platform_probe(device: FakeDevice) -> int:
    """vfio_platform_probe_common: a reset, and then a group."""
    return _vfio_probe(device) if device.resettable else errno.ENOENT


def _is_virtio(device: FakeDevice) -> bool:
    """virtio_pci_probe looks at the device id itself, whatever made it match."""
    return (
        device.pci is not None
        and device.pci.vendor == "1af4"
        and 0x1000 <= int(device.pci.device, 16) <= 0x107F
    )


_BRIDGES = (PciId(class_=0x060400, class_mask=0xFFFFFF),)


def built_in() -> list[FakeDriver]:
    """Drivers that are there from boot, in the order of their registration."""
    return [
        FakeDriver("pcieport", _BRIDGES, managed_dma=True, probe=_only(lambda d: d.pcie_port)),
        FakeDriver("shpchp", _BRIDGES, probe=_only(lambda d: d.shpc)),
        FakeDriver("virtio-pci", (PciId(0x1AF4),), probe=_only(_is_virtio), offers=("block", "vda")),
        FakeDriver("pl330-dma", names=("of:Tpl330",), bus="platform"),
        FakeDriver("pl011", names=("amba:pl011",), bus="amba"),
        FakeDriver("fsl_mc_dprc", names=("fsl-mc:dprc",), bus="fsl-mc", managed_dma=True),
        FakeDriver("fsl_dpaa2_eth", names=("fsl-mc:dpni",), bus="fsl-mc"),
        FakeDriver("cdx_host", names=("cdx:d1",), bus="cdx"),
        FakeDriver("io_subchannel", names=("css:t0",), bus="css"),
        FakeDriver("cex4queue", names=("ap:tD",), bus="ap"),
        FakeDriver("mtty", bus="mdev", managed_dma=True, vfio=True),
    ]


def modules() -> Mapping[str, Callable[[], FakeDriver]]:
    """What modprobe finds: module name to its driver."""
    return {
        "e1000e": lambda: FakeDriver("e1000e", (PciId(0x8086, 0x10D3),), offers=("net", "eth%d")),
        "e1000": lambda: FakeDriver(
            "e1000", (PciId(0x8086, 0x100E), PciId(0x8086, 0x100F)), offers=("net", "ens%d")
        ),
        "nvme": lambda: FakeDriver("nvme", (PciId(class_=0x010802, class_mask=0xFFFFFF),), sriov=True),
        "xhci_pci": lambda: FakeDriver("xhci_hcd", (PciId(class_=0x0C0330, class_mask=0xFFFFFF),)),
        "snd_hda_intel": lambda: FakeDriver("snd_hda_intel", (PciId(class_=0x040300, class_mask=0xFFFFFF),)),
        "pci_stub": lambda: FakeDriver("pci-stub", managed_dma=True),
        "vfio_pci": lambda: FakeDriver(
            "vfio-pci", variant_ids=(PciId(),), managed_dma=True, vfio=True, probe=_vfio_probe
        ),
        "vfio_platform": lambda: _vfio("vfio-platform", "platform", _vfio_platform_probe),
        "vfio_amba": lambda: _vfio("vfio-amba", "amba"),
        "vfio_fsl_mc": lambda: _vfio("vfio-fsl-mc", "fsl-mc"),
        "vfio_cdx": lambda: _vfio("vfio-cdx", "cdx"),
        # It makes mediated devices of its devices, and only those have a group.
        "vfio_ccw": lambda: FakeDriver("vfio_ccw", bus="css"),
    }
