"""Whether a function isolates: what is behind it, or beside it in its slot, is reached through the IOMMU only.

drivers/pci/pci.c, pci_acs_enabled, for the bits of REQ_ACS_FLAGS (drivers/iommu/iommu.c), Linux 5.10 to 7.3.
"""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.policy.pci_states import ACS_BITS
from vfioctl.policy.topology import quirks
from vfioctl.policy.topology.facts import (
    CONVENTIONAL,
    DOWNSTREAM_PORT,
    INTEGRATED_ENDPOINT,
    PCI_TO_PCIE,
    PCIE_TO_PCI,
    ROOT_PORT,
    Acs,
    Facts,
)

#: What Linux asks for: source validation, redirection of requests and completions, upstream forwarding.
REQUIRED = 0x1D
_WORDS = {
    ROOT_PORT: "root port",
    DOWNSTREAM_PORT: "downstream port of a switch",
    PCIE_TO_PCI: "bridge to conventional PCI",
    PCI_TO_PCIE: "bridge from conventional PCI",
    "root-complex-event-collector": "event collector",
}


class Host(NamedTuple):
    """``requested``: an IOMMU was on at boot, so that the kernel has turned ACS on where there is any; otherwise it is
    taken for what it would be. ``amd_vi``: the firmware has a table IVRS."""

    requested: bool = True
    amd_vi: bool = False


class Isolation(NamedTuple):
    """``isolated`` is None where it cannot be known. ``code`` says by what: ``acs``, ``single-function``, ``quirk``;
    if not: ``no-acs``, ``acs-not-enabled``, ``conventional``, ``bridge``, ``quirk``; or ``unreadable``. ``detail`` is
    what the function is, for people. ``missing``: the bits that it has and that are not on."""

    isolated: bool | None
    code: str
    detail: str
    acs: Acs | None = None
    missing: int = 0


def bit_names(mask: int) -> list[str]:
    """The names of the bits in an ACS register: SV, RR and so on."""
    return [name for number, name in enumerate(ACS_BITS.values()) if mask >> number & 1]


def isolation_of(facts: Facts, host: Host) -> Isolation:
    """The verdict on one function."""
    by_quirk = _by_quirk(facts, host)
    if by_quirk is not None:
        return by_quirk
    kind = facts.port_type
    if kind is None:
        return Isolation(None, "unreadable", "its configuration space cannot be read")
    if kind == CONVENTIONAL:
        return Isolation(False, "conventional", "a conventional PCI function, which has no ACS")
    if kind in (ROOT_PORT, DOWNSTREAM_PORT):
        return _by_acs(facts, host, f"a {_WORDS[kind]}")
    if kind in _WORDS:
        return Isolation(False, "bridge", f"a {_WORDS[kind]}")
    if facts.multifunction:
        return _by_acs(facts, host, "one of the functions of a slot")
    return Isolation(True, "single-function", "the only function of its slot")


def _by_acs(facts: Facts, host: Host, what: str) -> Isolation:
    acs = facts.acs
    if acs is None:
        return Isolation(False, "no-acs", f"{what} without ACS")
    wanted = REQUIRED & acs.capability
    missing = wanted & ~acs.control if host.requested else 0
    if missing:
        names = ", ".join(bit_names(missing))
        return Isolation(
            False, "acs-not-enabled", f"{what} whose ACS is there, but not on: {names}", acs, missing
        )
    if not host.requested:
        return Isolation(True, "acs", f"{what} whose ACS the kernel turns on when the IOMMU is", acs)
    return Isolation(True, "acs", f"{what} with ACS on", acs)


def _by_quirk(facts: Facts, host: Host) -> Isolation | None:
    """What the kernel's table of quirks says of a function; None when it says nothing."""
    ids, kind = facts.ids, facts.port_type
    if ids in quirks.ISOLATED_FUNCTIONS or ids in quirks.WANGXUN_ISOLATED:
        return _quirk(True, "its vendor says that its functions do not talk to each other")
    if ids in quirks.ISOLATED_PORTS:
        return _quirk(True, "its vendor says that it sends everything upwards")
    if facts.function.ids.vendor == quirks.WANGXUN:
        return _quirk(False, "its vendor does not say that it isolates")
    if (
        ids in quirks.AMD_SOUTHBRIDGE
        and facts.multifunction
        and facts.function.parent is None
        and host.amd_vi
    ):
        return _quirk(True, "AMD says that the functions of its southbridges do not talk to each other")
    if kind == INTEGRATED_ENDPOINT and facts.function.ids.vendor == quirks.INTEL:
        return _quirk(True, "Intel says that its integrated devices do not talk to each other")
    if kind == ROOT_PORT and ids in quirks.ISOLATED_ROOT_PORTS:
        return _quirk(True, "its vendor says that it sends everything upwards")
    if kind == ROOT_PORT and ids in quirks.INTEL_PCH:
        return _quirk(
            True, "the kernel programs Intel's chipset to send everything upwards, and says so in its log"
        )
    if kind in (ROOT_PORT, DOWNSTREAM_PORT) and facts.function.ids.vendor == quirks.ZHAOXIN:
        listed = ids in quirks.ZHAOXIN_ISOLATED
        return _quirk(
            listed, f"its vendor {'says' if listed else 'does not say'} that it sends everything upwards"
        )
    return None


def _quirk(isolated: bool, detail: str) -> Isolation:
    return Isolation(isolated, "quirk", detail)
