"""What show tells of a PCI function beyond its files: the states of its capabilities, and what can be trusted."""

from __future__ import annotations

from typing import Any

from vfioctl.cli import pci_records
from vfioctl.host.topology import read_function, read_functions
from vfioctl.model import Device, PciFunction
from vfioctl.policy import event_collectors
from vfioctl.policy.pci_states import shared, states_of

KEYS = ("config_size", *pci_records.states(None), "rcec", "rcec_endpoints", "untrusted")


def device_states(root: str, device: Device) -> tuple[dict[str, Any], list[str]]:
    """The states by the keys of show, null each off PCI; and sentences on why some are not known."""
    function = read_function(root, device.address) if device.bus == "pci" else None
    if function is None:
        return dict.fromkeys(KEYS), []
    states = states_of(function.config)
    if states is not None and function.physfn is not None:
        physical = read_function(root, function.physfn)
        states = shared(states, None if physical is None else states_of(physical.config))
    record = {
        "config_size": len(function.config) or None,
        **pci_records.states(states),
        **_collection(root, function),
        "untrusted": _is_untrusted(function),
    }
    return record, pci_records.unread((function,))


def _collection(root: str, function: PciFunction) -> dict[str, Any]:
    """Root Complex Event Collectors: that of an endpoint, or the endpoints of a collector."""
    found: dict[str, Any] = {"rcec": None, "rcec_endpoints": None}
    if event_collectors.is_collector(function):
        found["rcec_endpoints"] = event_collectors.endpoints_of(function, read_functions(root))
    elif event_collectors.is_collected(function):
        found["rcec"] = event_collectors.collector_of(function, read_functions(root))
    return found


def _is_untrusted(function: PciFunction) -> bool | None:
    """The kernel trusts nothing behind an external-facing port, calls it removable, and trusts all on a root bus
    (drivers/pci/probe.c, set_pcie_untrusted); of the rest sysfs does not tell."""
    if function.removable == "removable":
        return True
    return False if function.parent is None else None
