"""What the grouping of a PCI function depends on, from its ids, its place and its configuration space."""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.model import PciFunction
from vfioctl.policy import pci_config
from vfioctl.policy.topology import quirks

#: The type of a function without PCI Express's capability; the others are those of pci_config.
CONVENTIONAL = "conventional"
ROOT_PORT, DOWNSTREAM_PORT = "root-port", "downstream-port"
PCIE_TO_PCI, PCI_TO_PCIE = "pcie-to-pci-bridge", "pci-to-pcie-bridge"
INTEGRATED_ENDPOINT = "root-complex-endpoint"

_STATUS, _HEADER_TYPE, _MULTIFUNCTION = 0x06, 0x0E, 0x80
_HAS_CAPABILITIES = 0x10


class Acs(NamedTuple):
    """Access Control Services: the bits that a function has, and those that are on."""

    capability: int
    control: int


class Facts(NamedTuple):
    """``port_type`` and ``multifunction`` are None where they cannot be known: who is not root reads 64 bytes, one that
    sleeps is not read, and one that does not answer reads as all bits set. ``acs``: None also without that capability.

    ``aliases``: other functions of the bus in whose name it does DMA, by device << 3 | function.
    """

    function: PciFunction
    port_type: str | None
    multifunction: bool | None
    acs: Acs | None
    aliases: frozenset[int]

    @property
    def address(self) -> str:
        """The function's address."""
        return self.function.address

    @property
    def ids(self) -> tuple[str, str]:
        """Vendor and device."""
        return self.function.ids.vendor, self.function.ids.device

    @property
    def devfn(self) -> int:
        """Its number on the bus."""
        return self.function.slot << 3 | self.function.function


def facts_of(function: PciFunction) -> Facts:
    """A function's facts. Linux takes every function but the first of a slot for one of several, and no VF for one
    (drivers/pci/probe.c, pci_scan_slot; iov.c)."""
    config = function.config
    if pci_config.is_gone(config):
        config = b""
    port_type, acs = _express(function, config)
    if function.physfn is not None or function.function > 0:
        multifunction: bool | None = function.physfn is None
    else:
        multifunction = bool(config[_HEADER_TYPE] & _MULTIFUNCTION) if len(config) > _HEADER_TYPE else None
    return Facts(function, port_type, multifunction, acs, _aliases(function))


def _express(function: PciFunction, config: bytes) -> tuple[str | None, Acs | None]:
    if len(config) > _HEADER_TYPE and not config[_STATUS] & _HAS_CAPABILITIES:
        return CONVENTIONAL, None
    if len(config) < pci_config.CONVENTIONAL:
        return None, None
    found = {each.name: each for each in pci_config.decode(config).capabilities}
    if "CAP_EXP" not in found:
        return CONVENTIONAL, None
    port_type = str(found["CAP_EXP"].fields.get("type"))
    if "ECAP_ACS" not in found:
        return port_type, None
    start = found["ECAP_ACS"].offset
    wide = (function.ids.vendor, function.ids.device) in quirks.WIDE_ACS and port_type == ROOT_PORT
    width = 4 if wide else 2
    words = (
        int.from_bytes(config[start + 4 + i * width : start + 4 + (i + 1) * width], "little") for i in (0, 1)
    )
    return port_type, Acs(*words)


def _aliases(function: PciFunction) -> frozenset[int]:
    """Without the function itself."""
    ids = (function.ids.vendor, function.ids.device)
    subsystem = (function.ids.subsystem_vendor, function.ids.subsystem_device)
    first = function.slot << 3
    found: set[int] = set()
    if ids in quirks.ALIAS_FUNCTION_0:
        found = {first}
    elif ids in quirks.ALIAS_FUNCTION_1:
        found = {first | 1}
    elif ids in quirks.ALIAS_FIXED and subsystem in quirks.ALIAS_FIXED_SUBSYSTEMS:
        found = {1 << 3}
    elif ids in quirks.ALIAS_ALL:
        found = set(range(256))
    elif ids in quirks.ALIAS_MIC_X200:
        found = {0x10 << 3, 0x11 << 3, 0x12 << 3 | 3}
    elif ids in quirks.ALIAS_PEX_VCA:
        found = {slot << 3 | number for slot in range(32) for number in range(5)}
    return frozenset(found - {first | function.function})
