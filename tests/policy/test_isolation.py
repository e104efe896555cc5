"""Which functions isolate: by ACS, by being alone, or by what Linux knows of their model."""

from __future__ import annotations

import pytest

from tests.fakes.functions import ACS_OFF, FULL_ACS, NO_ACS, function
from vfioctl.model import PciFunction
from vfioctl.policy.topology import quirks
from vfioctl.policy.topology.facts import Acs, facts_of
from vfioctl.policy.topology.isolation import REQUIRED, Host, Isolation, bit_names, isolation_of

ON = Host()
PORT = "0000:00:1c.0"


def verdict(subject: PciFunction, host: Host = ON) -> Isolation:
    return isolation_of(facts_of(subject), host)


@pytest.mark.parametrize(
    ("kind", "acs", "multi", "expected"),
    [
        ("root-port", FULL_ACS, False, (True, "acs")),
        ("root-port", NO_ACS, False, (False, "no-acs")),
        ("root-port", ACS_OFF, False, (False, "acs-not-enabled")),
        ("downstream-port", NO_ACS, False, (False, "no-acs")),
        ("downstream-port", (0x1F, 0x1D), True, (True, "acs")),
        # What is not implemented counts as satisfied; egress control and the others do not matter.
        ("root-port", (0x01, 0x01), False, (True, "acs")),
        ("root-port", (0x00, 0x00), False, (True, "acs")),
        ("root-port", (0x7F, 0x1D), False, (True, "acs")),
        ("root-port", (0x7F, 0x62), False, (False, "acs-not-enabled")),
        ("upstream-port", NO_ACS, False, (True, "single-function")),
        ("upstream-port", NO_ACS, True, (False, "no-acs")),
        ("endpoint", NO_ACS, False, (True, "single-function")),
        ("endpoint", NO_ACS, True, (False, "no-acs")),
        ("endpoint", FULL_ACS, True, (True, "acs")),
        ("legacy-endpoint", ACS_OFF, True, (False, "acs-not-enabled")),
        ("root-complex-endpoint", NO_ACS, False, (True, "single-function")),
        ("root-complex-event-collector", FULL_ACS, False, (False, "bridge")),
        ("pcie-to-pci-bridge", FULL_ACS, False, (False, "bridge")),
        ("pci-to-pcie-bridge", FULL_ACS, False, (False, "bridge")),
        ("conventional", NO_ACS, False, (False, "conventional")),
    ],
)
def test_by_type_and_acs(
    kind: str, acs: tuple[int, int] | None, multi: bool, expected: tuple[bool, str]
) -> None:
    found = verdict(function(PORT, None, kind, acs, multi=multi))
    assert (found.isolated, found.code) == expected


def test_the_bits_that_are_missing_are_named() -> None:
    found = verdict(function(PORT, None, "root-port", (0x1F, 0x11)))
    assert (found.acs, found.missing) == (Acs(0x1F, 0x11), 0x0C)
    assert bit_names(found.missing) == ["RR", "CR"] and "RR, CR" in found.detail
    assert bit_names(REQUIRED) == ["SV", "RR", "CR", "UF"]
    assert bit_names(0x7F) == ["SV", "TB", "RR", "CR", "UF", "EC", "DT"]


def test_with_the_iommu_off_the_capability_counts() -> None:
    off = Host(requested=False)
    assert verdict(function(PORT, None, "root-port", ACS_OFF), off).isolated is True
    assert verdict(function(PORT, None, "root-port", NO_ACS), off).isolated is False


def test_several_functions_are_told_by_the_first_ones_header_or_by_the_number() -> None:
    first = function("0000:01:00.0", multi=True)
    second = function("0000:01:00.1")
    virtual = function("0000:01:00.2", physfn="0000:01:00.0")
    assert [facts_of(each).multifunction for each in (first, second, virtual)] == [True, True, False]


@pytest.mark.parametrize(
    ("ids", "kind", "acs", "expected"),
    [
        ("8086:1521", "endpoint", NO_ACS, True),  # a vendor's word
        ("8086:1520", "endpoint", NO_ACS, False),
        ("8088:1001", "endpoint", NO_ACS, True),
        ("8088:9999", "endpoint", FULL_ACS, False),
        ("17cb:0400", "root-port", NO_ACS, True),
        ("177d:a123", "root-port", NO_ACS, True),
        ("177d:a123", "endpoint", NO_ACS, False),
        ("1c36:0031", "root-port", NO_ACS, True),
        ("1c36:0031", "downstream-port", NO_ACS, False),
        ("1d17:0721", "root-port", NO_ACS, True),
        ("1d17:0800", "root-port", FULL_ACS, False),
        ("1d17:0800", "endpoint", FULL_ACS, True),
        ("8086:4b3d", "root-complex-endpoint", NO_ACS, True),
        ("1022:4b3d", "root-complex-endpoint", NO_ACS, False),
        ("8086:8c10", "root-port", NO_ACS, True),
        ("8086:8c10", "endpoint", NO_ACS, False),
    ],
)
def test_by_model(ids: str, kind: str, acs: tuple[int, int] | None, expected: bool) -> None:
    found = verdict(function("0000:00:1c.1", None, kind, acs, ids=ids, multi=True))
    assert found.isolated is expected


def test_amd_southbridges_isolate_where_there_is_amd_vi() -> None:
    bridge = function("0000:00:14.0", None, "conventional", ids="1022:780f", multi=True)
    port = function("0000:00:01.0", None, "root-port")
    elsewhere = function("0000:01:14.0", port, "conventional", ids="1022:780f", multi=True)
    single = function("0000:00:14.0", None, "conventional", ids="1022:780f")
    amd = Host(amd_vi=True)
    assert [verdict(each, amd).isolated for each in (bridge, elsewhere, single)] == [True, False, False]
    assert verdict(bridge).isolated is False


def test_registers_that_are_twice_as_wide() -> None:
    """Sunrise Point: the capability is the doubleword at 4, and the control is at 8."""
    narrow = function(PORT, None, "root-port", (0x1F, 0), ids="8086:a115")
    data = bytearray(narrow.config)
    assert verdict(narrow).code == "acs-not-enabled"
    data[0x108:0x10C] = (0x1D).to_bytes(4, "little")
    found = verdict(narrow._replace(config=bytes(data)))
    assert (found.isolated, found.acs) == (True, Acs(0x1F, 0x1D))
    assert verdict(function(PORT, None, "root-port", FULL_ACS, ids="8086:a120")).isolated is True


@pytest.mark.parametrize(
    "config", [b"", b"\xff" * 256, function(PORT, None, "root-port", FULL_ACS).config[:64]]
)
def test_unknown_where_it_cannot_be_read(config: bytes) -> None:
    found = verdict(function(PORT, None, "root-port")._replace(config=config))
    assert (found.isolated, found.code) == (None, "unreadable")


def test_what_needs_no_capability_is_known_without_them() -> None:
    short = function(PORT, None, "conventional").config[:64]
    assert verdict(function(PORT)._replace(config=short)).code == "conventional"
    quirk = function(PORT, ids="8086:1521", multi=True)._replace(config=b"")
    assert verdict(quirk).isolated is True


def test_the_tables_hold_what_the_kernels_do() -> None:
    """Counts and samples of drivers/pci/quirks.c, Linux 7.3."""
    assert len(quirks.ISOLATED_FUNCTIONS) == 67 and ("8086", "10fb") in quirks.ISOLATED_FUNCTIONS
    assert len(quirks.ISOLATED_PORTS) == 50 and ("1957", "8d9b") in quirks.ISOLATED_PORTS
    assert len(quirks.INTEL_PCH) == 119 and ("8086", "9c9b") in quirks.INTEL_PCH
    assert ("8086", "1d11") not in quirks.INTEL_PCH
    tables = [table for table in vars(quirks).values() if isinstance(table, frozenset)]
    assert len(tables) == 17
    assert all(len(vendor) == len(device) == 4 for table in tables for vendor, device in table)
