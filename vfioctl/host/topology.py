"""Reads the PCI functions in their hierarchy, with as much of their configuration space as may be read."""

from __future__ import annotations

import os
import re

from vfioctl.host.files import GONE, forbidden, link_name, names, read
from vfioctl.host.reader import parse_pci_modalias
from vfioctl.model import IommuUnit, PciFunction, PciLink

_SPACE = 4096
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_WIDTH_UNKNOWN = 0xFF  # enum pcie_link_width


def read_functions(root: str = "/") -> tuple[PciFunction, ...]:
    """All functions under ``root``, sorted by address.

    None is woken: see :func:`sleeps`. What vanishes meanwhile is left out.
    """
    addresses = filter(_ADDRESS.fullmatch, names(os.path.join(root, "sys/bus/pci/devices")))
    found = [read_function(root, address) for address in addresses]
    present = [function for function in found if function is not None]
    return tuple(sorted(present, key=lambda f: (int(f.address.split(":")[0], 16), f.address)))


def read_function(root: str, address: str) -> PciFunction | None:
    """One function; None where there is none of that address."""
    top = os.path.join(root, "sys/bus/pci/devices", address)
    ids = parse_pci_modalias(read(f"{top}/modalias") or "")
    if ids is None:
        return None
    group = link_name(f"{top}/iommu_group")
    path = os.path.realpath(top)
    asleep = sleeps(path)
    return PciFunction(
        address,
        _below_devices(path),
        ids,
        b"" if asleep else _config(f"{top}/config"),
        int(group) if group is not None and group.isdecimal() else None,
        link_name(f"{top}/driver"),
        link_name(f"{top}/physfn"),
        read(f"{top}/removable"),
        asleep,
        None if asleep else _link(top),
    )


def unit_of(root: str, key: str) -> IommuUnit | None:
    """The IOMMU that serves the device ``bus/address``; None where its driver does not say (POWER before Linux 6.9)."""
    bus, _, address = key.partition("/")
    link = os.path.join(root, "sys/bus", bus, "devices", address, "iommu")
    name = link_name(link)
    return None if name is None else IommuUnit(name, link_name(f"{link}/device/driver"))


def sleeps(path: str) -> bool:
    """Whether reading the configuration space of the function with that real path would wake something: the function
    itself when it is in D3cold, in D3hot and above only the bridge that it is behind, when that is suspended
    (drivers/pci/pci.c, pci_config_pm_runtime_get).

    Before Linux 5.11 there is no ``power_state``, and what is suspended is taken for D3cold.
    """
    state = read(f"{path}/power_state")
    cold = state == "D3cold" if state is not None else _suspended(path)
    return cold or _suspended(os.path.dirname(path))


def _suspended(path: str) -> bool:
    return read(f"{path}/power/runtime_status") in ("suspended", "suspending", "resuming")


def _link(top: str) -> PciLink | None:
    """None for a function without one: conventional, or integrated in the root complex, whose width is 0."""
    speed, max_speed = (_speed(f"{top}/{which}_link_speed") for which in ("current", "max"))
    width, max_width = (_width(f"{top}/{which}_link_width") for which in ("current", "max"))
    return PciLink(speed, width, max_speed, max_width) if width or max_width else None


def _speed(path: str) -> str | None:
    speed = _answer(path)
    return None if speed is None or speed.startswith("Unknown") else speed


def _width(path: str) -> int | None:
    width = _answer(path)
    return int(width) if width and width.isdecimal() and 0 < int(width) < _WIDTH_UNKNOWN else None


def _answer(path: str) -> str | None:
    try:
        return read(path)
    except OSError:  # the registers of a device that has just gone
        return None


def _below_devices(path: str) -> str:
    """The part of a real path from the host bridge on."""
    parts = path.split("/")
    first = next(
        (i for i, part in enumerate(parts) if part.startswith("pci") and ":" in part), len(parts) - 1
    )
    return "/".join(parts[first:])


def _config(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in GONE or isinstance(forbidden(error), PermissionError):
            return b""
        raise
    try:
        data = b""
        while len(data) < _SPACE and (more := os.read(fd, _SPACE)):
            data += more
        return data
    except OSError as error:
        if error.errno in GONE:
            return b""
        raise
    finally:
        os.close(fd)
