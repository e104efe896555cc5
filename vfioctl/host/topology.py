"""Reads the PCI functions in their hierarchy, with as much of their configuration space as may be read."""

from __future__ import annotations

import os

from vfioctl.host.files import GONE, link_name, names, read
from vfioctl.host.reader import parse_pci_modalias
from vfioctl.model import PciFunction

_SPACE = 4096


def read_functions(root: str = "/") -> tuple[PciFunction, ...]:
    """All functions under ``root``, sorted by address.

    Reading the configuration space of a function that is suspended wakes it for the moment (drivers/pci/pci-sysfs.c,
    pci_read_config). What vanishes meanwhile is left out.
    """
    top = os.path.join(root, "sys/bus/pci/devices")
    found = []
    for address in names(top):
        function = _function(f"{top}/{address}", address)
        if function is not None:
            found.append(function)
    return tuple(sorted(found, key=lambda f: (int(f.address.split(":")[0], 16), f.address)))


def _function(top: str, address: str) -> PciFunction | None:
    ids = parse_pci_modalias(read(f"{top}/modalias") or "")
    if ids is None:
        return None
    group = link_name(f"{top}/iommu_group")
    return PciFunction(
        address,
        _below_devices(os.path.realpath(top)),
        ids,
        _config(f"{top}/config"),
        int(group) if group is not None and group.isdecimal() else None,
        link_name(f"{top}/driver"),
        link_name(f"{top}/physfn"),
        read(f"{top}/removable"),
    )


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
        if error.errno in GONE or isinstance(error, PermissionError):
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
