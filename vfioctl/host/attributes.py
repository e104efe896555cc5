"""The sysfs attributes of one device that help to decide about it; those that are not there are None."""

from __future__ import annotations

import os
from typing import Any

from vfioctl.host.files import link_name, names, read
from vfioctl.host.names import carried_by
from vfioctl.host.topology import sleeps

_LINK = ("current_link_speed", "max_link_speed", "current_link_width", "max_link_width")
_NUMBERS = ("numa_node", "sriov_totalvfs", "sriov_numvfs", "current_link_width", "max_link_width")
_TEXTS = (
    "revision",
    "power_state",
    "d3cold_allowed",
    "reset_method",
    "current_link_speed",
    "max_link_speed",
    "removable",
    "boot_vga",
)


def read_attributes(root: str, key: str) -> dict[str, Any]:
    """Attributes of the device ``bus/address``, by their sysfs names, and what hangs on it.

    Files that the caller may not read are None too; none of these wakes, opens or resets the device.
    """
    bus, _, address = key.partition("/")
    top = os.path.join(root, "sys/bus", bus, "devices", address)
    found: dict[str, Any] = {}
    # Newer kernels wake what is asked for its link, as for its configuration space (drivers/pci/pci-sysfs.c).
    waking = _LINK if sleeps(os.path.realpath(top)) else ()
    for name in _TEXTS:
        found[name] = None if name in waking else _read(f"{top}/{name}")
    for name in _NUMBERS:
        # sriov_numvfs takes the device's lock, which the kernel may hold for ever.
        text = (
            None
            if name in waking
            else _unlocked(f"{top}/{name}")
            if root == "/" and name == "sriov_numvfs"
            else _read(f"{top}/{name}")
        )
        found[name] = int(text) if text and text.lstrip("-").isdecimal() else None
    found["reset_method"] = None if found["reset_method"] is None else found["reset_method"].split()
    found["runtime_status"] = _read(f"{top}/power/runtime_status")
    found["iommu"] = link_name(f"{top}/iommu")
    found["physfn"] = link_name(f"{top}/physfn")
    found["virtfns"] = [link_name(f"{top}/{n}") for n in names(top) if n.startswith("virtfn")]
    found["driver_module"] = link_name(f"{top}/driver/module")
    found["parent"] = os.path.basename(os.path.dirname(os.path.realpath(top)))
    found["external_facing"] = _external_facing(top) or None
    found["aer_counters"] = _errors(top)
    found["resources"] = _resources(_read(f"{top}/resource") or "")
    found["net"] = carried_by(root, top, "net")
    found["block"] = carried_by(root, top, "block")
    return found


def _read(path: str) -> str | None:
    try:
        return read(path)
    except OSError:  # forbidden, or an attribute that the device cannot answer just now
        return None


def _unlocked(path: str) -> str | None:
    from vfioctl.host.locked import Lock, read_all

    (text,) = read_all([path])
    return None if isinstance(text, Lock) else text


def _external_facing(top: str) -> bool:
    """Whether there is evidence that the firmware calls a port external-facing: the device tree's property, or the
    kernel's conclusion that what is behind it can be removed, which it draws from ACPI's, too (drivers/pci/probe.c,
    pci_set_removable)."""
    if os.path.exists(f"{top}/of_node/external-facing"):
        return True
    inside = _read(f"{top}/removable") == "removable"
    return not inside and any(_read(f"{top}/{n}/removable") == "removable" for n in names(top) if ":" in n)


def _errors(top: str) -> dict[str, dict[str, int]] | None:
    """The errors that the kernel has counted, by severity: the total, and each kind that there was, by its name in
    ``aer_dev_*``; and the messages that a root port or event collector has received. None for a device without AER, or
    whose AER is the firmware's."""
    found: dict[str, dict[str, int]] = {}
    for severity in ("correctable", "nonfatal", "fatal"):
        lines = [line.split() for line in (_read(f"{top}/aer_dev_{severity}") or "").splitlines()]
        counts = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
        if counts:
            total = sum(count for name, count in counts.items() if name.startswith("TOTAL_"))
            kinds = {n: count for n, count in counts.items() if count and not n.startswith("TOTAL_")}
            found[severity] = {"total": total, **kinds}
    received = {
        severity: _read(f"{top}/aer_rootport_total_err_{name}")
        for severity, name in (("correctable", "cor"), ("nonfatal", "nonfatal"), ("fatal", "fatal"))
    }
    if all(received.values()):
        found["received"] = {severity: int(count or 0) for severity, count in received.items()}
    return found or None


def _resources(text: str) -> list[dict[str, Any]]:
    """The regions of a PCI device from ``resource``: lines of first, last and flags; unused lines are zero."""
    found = []
    for index, line in enumerate(text.splitlines()):
        fields = line.split()
        if len(fields) == 3 and int(fields[1], 16):
            start, end = int(fields[0], 16), int(fields[1], 16)
            kind = "io" if int(fields[2], 16) & 0x100 else "mem"
            found.append({"index": index, "type": kind, "start": start, "size": end - start + 1})
    return found
