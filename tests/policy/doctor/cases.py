"""A healthy host as a doctor sees it, to be made ill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfioctl.model import (
    Device,
    IommuGroup,
    Kernel,
    LockLimit,
    Node,
    PciIds,
    Platform,
    Readings,
    ReservedRegion,
    Snapshot,
    Unread,
)
from vfioctl.policy.doctor import examine
from vfioctl.policy.doctor.findings import Case, Finding

CMDLINE = "/proc/cmdline"
NIC = PciIds("020000", "8086", "10d3", "8086", "0000")
BRIDGE = PciIds("060400", "1b36", "000e", "0000", "0000")
MODULES = ("vfio", "vfio_pci", "vfio_iommu_type1")


def device(
    address: str, group: int | None, driver: str | None = None, pci: PciIds = NIC, **more: Any
) -> Device:
    return Device(address, "pci", group, pci, driver, modalias="pci:v00008086", **more)


A = device("0000:01:00.0", 1, "e1000e")
B = device("0000:02:00.0", 2)
BRIDGE_ABOVE = device("0000:03:00.0", 3, "pcieport", BRIDGE)
BEHIND = device("0000:04:00.0", 3)


def groups_of(
    *devices: Device, regions: Mapping[int, str] | None = None, nodes: Mapping[int, int] | None = None
) -> tuple[IommuGroup, ...]:
    """The groups of some devices; ``regions``: the type of a reserved region, ``nodes``: the mode of a node."""
    found: dict[int, list[Device]] = {}
    for each in devices:
        if each.group is not None:
            found.setdefault(each.group, []).append(each)
    return tuple(
        IommuGroup(
            number,
            type="DMA-FQ",
            reserved_regions=(ReservedRegion(0x1000, 0x1FFF, regions[number]),)
            if regions and number in regions
            else (),
            node=Node(f"/dev/vfio/{number}", 0, 0, nodes[number]) if nodes and number in nodes else None,
            devices=tuple(members),
        )
        for number, members in found.items()
    )


def case(
    *devices: Device,
    groups: tuple[IommuGroup, ...] | None = None,
    texts: Mapping[str, str | Unread] | None = None,
    cmdline: str = "root=/dev/sda1",
    kernel: Mapping[str, Any] | None = None,
    modules: Mapping[str, str | None] | None = None,
    tables: tuple[str, ...] = ("DMAR",),
    **more: Any,
) -> Case:
    """A case of some devices, with what differs from a healthy host."""
    devices = devices or (A, B, BRIDGE_ABOVE, BEHIND)
    facts: dict[str, Any] = {
        "release": "6.12.1", "machine": "x86_64", "interrupts_isolated": True, "iommu_units": ("dmar0",)
    } | dict(kernel or {})  # fmt: skip
    snapshot = Snapshot(Kernel(**facts), groups_of(*devices) if groups is None else groups, devices)
    platform = Platform(facts["machine"], cmdline, tables, facts["iommu_units"], True, True)
    readings = Readings(
        {CMDLINE: cmdline, **(texts or {})},
        {"/dev/vfio/vfio": Node("/dev/vfio/vfio", 0, 0, 0o666)},
        dict.fromkeys(MODULES, "available") | dict(modules or {}),
    )
    lock = LockLimit("uid 0", None, None, "/proc/self/limits", "")
    return Case(snapshot, platform, readings, **{"lock": lock, **more})


def found(given: Case) -> dict[str, Finding]:
    """The findings by code."""
    checks = examine(given)
    return {finding.code: finding for check in checks for finding in check.findings}
