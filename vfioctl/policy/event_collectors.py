"""Which Root Complex Event Collector gets the errors and power events of an endpoint integrated in the root complex."""

from __future__ import annotations

from collections.abc import Iterable

from vfioctl.model import PciFunction
from vfioctl.policy.pci_config import Capability, decode
from vfioctl.policy.pci_states import port_type

_WITH_BUSES = 2  # the version of the capability from which on it names other buses, PCI_RCEC_BUSN_REG_VER


def is_collector(function: PciFunction) -> bool:
    """Whether it is one, as far as its configuration space has been read."""
    return port_type(function.config) == "root-complex-event-collector"


def is_collected(function: PciFunction) -> bool:
    """Whether it is an endpoint that has one."""
    return port_type(function.config) == "root-complex-endpoint"


def collector_of(endpoint: PciFunction, functions: Iterable[PciFunction]) -> str | None:
    """The address of the collector that the endpoint is associated with; of several the last, as the kernel has it."""
    found = [f.address for f in functions if is_collector(f) and _collects(f, endpoint)]
    return found[-1] if found else None


def endpoints_of(collector: PciFunction, functions: Iterable[PciFunction]) -> list[str]:
    """The addresses of the endpoints that are associated with a collector."""
    return [f.address for f in functions if is_collected(f) and _collects(collector, f)]


def _collects(collector: PciFunction, endpoint: PciFunction) -> bool:
    """The kernel's rule (drivers/pci/pcie/rcec.c, rcec_assoc_rciep and walk_rcec): on its own bus the devices in a bit
    map, and all on a range of other buses."""
    association = _association(collector)
    domain, _, bus = endpoint.bus.partition(":")
    if association is None or domain != collector.bus.partition(":")[0]:
        return False
    if endpoint.bus == collector.bus:
        return bool(int(association.fields.get("devices", 0)) >> endpoint.slot & 1)
    if (association.version or 0) < _WITH_BUSES:
        return False
    first, last = (int(association.fields.get(name, 0)) for name in ("next_bus", "last_bus"))
    return first <= int(bus, 16) <= last


def _association(collector: PciFunction) -> Capability | None:
    found = (each for each in decode(collector.config).capabilities if each.name == "ECAP_RCECOLL")
    return next(found, None)
