"""What the capabilities of PCI configuration space hold: their names and main fields, as data (floor 3).

Names are those of pciutils (setpci --dumpregs); offsets and bits those of <linux/pci_regs.h>.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Value = int | bool | str


class Field(NamedTuple):
    """``bits`` bits from bit ``low`` on of the register of ``width`` bytes at ``offset`` from the capability."""

    key: str
    offset: int
    width: int
    low: int = 0
    bits: int = 0
    meaning: Callable[[int], Value] = int

    def of(self, register: int) -> Value:
        """The field's value in the register's."""
        bits = self.bits or 8 * self.width - self.low
        return self.meaning(register >> self.low & ((1 << bits) - 1))


class Kind(NamedTuple):
    """A kind of capability: ``name`` is the one that setpci takes."""

    name: str
    fields: tuple[Field, ...] = ()


def _flag(key: str, offset: int, width: int, bit: int) -> Field:
    return Field(key, offset, width, bit, 1, bool)


def _flags(offset: int, width: int, names: str, first: int = 0) -> tuple[Field, ...]:
    """A flag each for the bits from ``first`` on; - leaves one out."""
    return tuple(_flag(n, offset, width, first + i) for i, n in enumerate(names.split()) if n != "-")


def _one_more(value: int) -> int:
    return value + 1


def _power(value: int) -> int:
    return 1 << value


def _payload(value: int) -> int:
    return 128 << value


def _aligned(value: int) -> int:
    return value << 3


_PORT_TYPES = {
    0: "endpoint", 1: "legacy-endpoint", 4: "root-port", 5: "upstream-port", 6: "downstream-port",
    7: "pcie-to-pci-bridge", 8: "pci-to-pcie-bridge", 9: "root-complex-endpoint", 10: "root-complex-event-collector",
}  # fmt: skip
_SPEEDS = {1: "2.5 GT/s", 2: "5 GT/s", 3: "8 GT/s", 4: "16 GT/s", 5: "32 GT/s", 6: "64 GT/s"}


def _port_type(value: int) -> str:
    return _PORT_TYPES.get(value, str(value))


def _speed(value: int) -> str:
    return _SPEEDS.get(value, str(value))


def _power_state(value: int) -> str:
    return f"D{value}"


PM = (
    Field("version", 2, 2, 0, 3),
    *_flags(2, 2, "d1 d2", 9),
    Field("state", 4, 2, 0, 2, _power_state),
    _flag("no_soft_reset", 4, 2, 3),
    _flag("pme_enabled", 4, 2, 8),
    _flag("pme_status", 4, 2, 15),
)
MSI = (
    _flag("enabled", 2, 2, 0),
    Field("vectors", 2, 2, 1, 3, _power),
    Field("vectors_enabled", 2, 2, 4, 3, _power),
    _flag("address_64", 2, 2, 7),
    _flag("maskable", 2, 2, 8),
)
MSIX = (
    _flag("enabled", 2, 2, 15),
    _flag("masked", 2, 2, 14),
    Field("vectors", 2, 2, 0, 11, _one_more),
    Field("table_bar", 4, 4, 0, 3),
    Field("table_offset", 4, 4, 3, 29, _aligned),
    Field("pba_bar", 8, 4, 0, 3),
    Field("pba_offset", 8, 4, 3, 29, _aligned),
)
EXP = (
    Field("version", 2, 2, 0, 4),
    Field("type", 2, 2, 4, 4, _port_type),
    _flag("slot", 2, 2, 8),
    _flag("flr", 4, 4, 28),
    Field("max_payload_supported", 4, 4, 0, 3, _payload),
    *_flags(8, 2, "report_correctable report_nonfatal report_fatal report_unsupported"),
    Field("max_payload", 8, 2, 5, 3, _payload),
    Field("max_read_request", 8, 2, 12, 3, _payload),
    *_flags(8, 2, "relaxed_ordering - - - extended_tags - - no_snoop", 4),
    *_flags(10, 2, "correctable_error nonfatal_error fatal_error unsupported_request - transactions_pending"),
    Field("link_speed_max", 12, 4, 0, 4, _speed),
    Field("link_width_max", 12, 4, 4, 6),
    Field("link_speed", 18, 2, 0, 4, _speed),
    Field("link_width", 18, 2, 4, 6),
)
AER = (
    Field("uncorrectable_status", 4, 4),
    Field("uncorrectable_mask", 8, 4),
    Field("uncorrectable_severity", 12, 4),
    Field("correctable_status", 16, 4),
    Field("correctable_mask", 20, 4),
)
_ACS = "source_validation translation_blocking request_redirect completion_redirect upstream_forwarding egress_control"
ACS = (
    *_flags(4, 2, f"{_ACS} direct_translated"),
    *_flags(6, 2, " ".join(f"{n}_enabled" for n in f"{_ACS} direct_translated".split())),
)
ATS = (
    Field("queue_depth", 4, 2, 0, 5),
    _flag("page_aligned", 4, 2, 5),
    Field("smallest_unit", 6, 2, 0, 5),
    _flag("enabled", 6, 2, 15),
)
SRIOV = (
    _flag("enabled", 8, 2, 0),
    _flag("memory_space", 8, 2, 3),
    Field("initial_vfs", 12, 2),
    Field("total_vfs", 14, 2),
    Field("num_vfs", 16, 2),
    Field("vf_offset", 20, 2),
    Field("vf_stride", 22, 2),
    Field("vf_device_id", 26, 2),
    Field("page_sizes_supported", 28, 4),
    Field("page_size", 32, 4),
)
PASID = (
    *_flags(4, 2, "execute privileged", 1),
    Field("max_width", 4, 2, 8, 5),
    *_flags(6, 2, "enabled execute_enabled privileged_enabled"),
)
PRI = (
    *_flags(4, 2, "enabled reset"),
    _flag("failed", 6, 2, 0),
    _flag("stopped", 6, 2, 8),
    Field("capacity", 8, 4),
    Field("allocated", 12, 4),
)
#: One register of each kind for each BAR; their number stands in the first.
REBAR = (Field("bars", 8, 4, 5, 3),)
RCEC = (
    Field("devices", 4, 4),
    Field("next_bus", 8, 4, 8, 8),
    Field("last_bus", 8, 4, 16, 8),
)
VENDOR_SPECIFIC = (Field("id", 4, 4, 0, 16), Field("revision", 4, 4, 16, 4), Field("length", 4, 4, 20, 12))
DVSEC = (
    Field("vendor", 4, 4, 0, 16),
    Field("revision", 4, 4, 16, 4),
    Field("length", 4, 4, 20, 12),
    Field("id", 8, 2),
)


def _kinds(names: str, fields: dict[str, tuple[Field, ...]]) -> dict[int, Kind]:
    """The kinds whose ids are 1 and up."""
    return {number: Kind(name, fields.get(name, ())) for number, name in enumerate(names.split(), 1)}


#: Capabilities by id, PCI_CAP_ID_* of <linux/pci_regs.h>.
STANDARD = _kinds(
    "CAP_PM CAP_AGP CAP_VPD CAP_SLOTID CAP_MSI CAP_CHSWP CAP_PCIX CAP_HT CAP_VNDR CAP_DBG CAP_CCRC CAP_HOTPLUG "
    "CAP_SSVID CAP_AGP3 CAP_SECURE CAP_EXP CAP_MSIX CAP_SATA CAP_AF CAP_EA",
    {
        "CAP_PM": PM,
        "CAP_VPD": (Field("address", 2, 2, 0, 15), _flag("done", 2, 2, 15)),
        "CAP_MSI": MSI,
        "CAP_VNDR": (Field("length", 2, 1),),
        "CAP_SSVID": (Field("vendor", 4, 2), Field("device", 6, 2)),
        "CAP_EXP": EXP,
        "CAP_MSIX": MSIX,
        "CAP_AF": (*_flags(3, 1, "transactions_pending_known flr"), _flag("transactions_pending", 5, 1, 0)),
    },
)

#: Extended capabilities by id, PCI_EXT_CAP_ID_*.
EXTENDED = _kinds(
    "ECAP_AER ECAP_VC ECAP_DSN ECAP_PB ECAP_RCLINK ECAP_RCILINK ECAP_RCECOLL ECAP_MFVC ECAP_VC2 ECAP_RBCB ECAP_VNDR "
    "ECAP_CAC ECAP_ACS ECAP_ARI ECAP_ATS ECAP_SRIOV ECAP_MRIOV ECAP_MCAST ECAP_PRI ECAP_AMD ECAP_REBAR ECAP_DPA "
    "ECAP_TPH ECAP_LTR ECAP_SECPCI ECAP_PMUX ECAP_PASID ECAP_LNR ECAP_DPC ECAP_L1PM ECAP_PTM ECAP_M_PCIE ECAP_FRS "
    "ECAP_RTR ECAP_DVSEC ECAP_VF_REBAR ECAP_DLNK ECAP_16GT ECAP_LMR ECAP_HIER_ID ECAP_NPEM ECAP_32GT",
    {
        "ECAP_AER": AER,
        "ECAP_DSN": (Field("serial", 4, 8),),
        "ECAP_RCECOLL": RCEC,
        "ECAP_VNDR": VENDOR_SPECIFIC,
        "ECAP_ACS": ACS,
        "ECAP_ARI": (Field("next_function", 4, 2, 8, 8),),
        "ECAP_ATS": ATS,
        "ECAP_SRIOV": SRIOV,
        "ECAP_PRI": PRI,
        "ECAP_REBAR": REBAR,
        "ECAP_LTR": (Field("max_snoop", 4, 2), Field("max_no_snoop", 6, 2)),
        "ECAP_PASID": PASID,
        "ECAP_DVSEC": DVSEC,
    },
) | {0x2E: Kind("ECAP_DOE")}
