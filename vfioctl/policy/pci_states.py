"""What a function's configuration space says of isolation, address translation and errors: there, and switched on?"""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.policy.pci_config import CONVENTIONAL, Capability, decode, is_gone

#: PCI_ACS_* of <linux/pci_regs.h>, in the order of the bits, by the names of vfioctl.policy.pci_config.
ACS_BITS = {
    "source_validation": "SV",
    "translation_blocking": "TB",
    "request_redirect": "RR",
    "completion_redirect": "CR",
    "upstream_forwarding": "UF",
    "egress_control": "EC",
    "direct_translated": "DT",
}
_MEBIBYTE = 20


class Switch(NamedTuple):
    """A capability that is there or not, and on or off."""

    present: bool
    enabled: bool


class Acs(NamedTuple):
    """Access control services: what the function implements, and what of it is on, as SV, RR, CR, UF and so on."""

    present: bool
    supported: tuple[str, ...] = ()
    enabled: tuple[str, ...] = ()


class ResizableBar(NamedTuple):
    """A BAR with its size, and those that it could have, in bytes."""

    bar: int
    size: int
    sizes: tuple[int, ...]


class Rebar(NamedTuple):
    """Resizable BARs."""

    present: bool
    bars: tuple[ResizableBar, ...] = ()


class Aer(NamedTuple):
    """Advanced error reporting. ``enabled``: which errors the function reports: correctable, nonfatal, fatal."""

    present: bool
    enabled: tuple[str, ...] = ()


class States(NamedTuple):
    """The states of a function whose configuration space has been read; ``pri`` and ``pasid`` of a virtual function are
    not known while those of its physical one are not."""

    acs: Acs
    ats: Switch
    pri: Switch | None
    pasid: Switch | None
    rebar: Rebar
    aer: Aer


def states_of(config: bytes) -> States | None:
    """None when that is less than a whole space, as the kernel gives it to all but root, or reads as ones."""
    if len(config) < CONVENTIONAL or is_gone(config):
        return None
    found = {capability.name: capability for capability in decode(config).capabilities}
    return States(
        _acs(found.get("ECAP_ACS")),
        _switch(found.get("ECAP_ATS")),
        _switch(found.get("ECAP_PRI")),
        _switch(found.get("ECAP_PASID")),
        _rebar(config, found.get("ECAP_REBAR")),
        _aer(found),
    )


def shared(virtual: States, physical: States | None) -> States:
    """The states of a virtual function, which uses its physical function's PRI and PASID (drivers/pci/ats.c)."""
    pri, pasid = (None, None) if physical is None else (physical.pri, physical.pasid)
    return virtual._replace(pri=pri, pasid=pasid)


def port_type(config: bytes) -> str | None:
    """The type of PCI Express function, or None."""
    for capability in decode(config).capabilities:
        if capability.name == "CAP_EXP":
            return str(capability.fields.get("type"))
    return None


def _switch(capability: Capability | None) -> Switch:
    return Switch(False, False) if capability is None else Switch(True, _is_set(capability, "enabled"))


def _acs(capability: Capability | None) -> Acs:
    if capability is None:
        return Acs(False)
    supported = tuple(short for name, short in ACS_BITS.items() if _is_set(capability, name))
    enabled = tuple(short for name, short in ACS_BITS.items() if _is_set(capability, f"{name}_enabled"))
    return Acs(True, supported, enabled)


def _aer(found: dict[str, Capability]) -> Aer:
    if "ECAP_AER" not in found:
        return Aer(False)
    express = found.get("CAP_EXP")
    words = ("correctable", "nonfatal", "fatal")
    return Aer(True, tuple(word for word in words if express and _is_set(express, f"report_{word}")))


def _rebar(config: bytes, capability: Capability | None) -> Rebar:
    if capability is None:
        return Rebar(False)
    bars = []
    for index in range(int(capability.fields.get("bars", 0))):
        start = capability.offset + 4 + 8 * index
        if start + 8 > len(config):
            break
        can, control = (int.from_bytes(config[at : at + 4], "little") for at in (start, start + 4))
        # Sizes from 1 MiB on: bits 31:4 of the capability, and on from there bits 31:16 of the control register.
        possible = can >> 4 | control >> 16 << 28
        sizes = tuple(1 << _MEBIBYTE + bit for bit in range(possible.bit_length()) if possible >> bit & 1)
        bars.append(ResizableBar(control & 7, 1 << _MEBIBYTE + (control >> 8 & 0x3F), sizes))
    return Rebar(True, tuple(bars))


def _is_set(capability: Capability, name: str) -> bool:
    return capability.fields.get(name) is True
