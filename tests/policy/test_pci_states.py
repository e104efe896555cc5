"""States of capabilities from configuration space: real dumps, and registers made for what no dump has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_pci_config import dump
from vfioctl.model import PciFunction, PciIds
from vfioctl.policy import event_collectors
from vfioctl.policy.pci_states import Acs, Aer, Rebar, ResizableBar, Switch, port_type, shared, states_of

OFF = Switch(False, False)
MEBIBYTE = 1 << 20


def space(*capabilities: tuple[int, int, bytes], port: int | None = None, size: int = 4096) -> bytes:
    """A space with extended capabilities (id, version, what follows the header), and a PCI Express capability of the
    type ``port``."""
    data = bytearray(size)
    data[0:2] = b"\x86\x80"
    if port is not None:
        data[0x06], data[0x34], data[0x40] = 0x10, 0x40, 0x10
        data[0x42:0x44] = (2 | port << 4).to_bytes(2, "little")
        data[0x48] = 0x5  # DevCtl: correctable and fatal errors
    for index, (id_, version, body) in enumerate(capabilities):
        at = 0x100 + 0x40 * index
        following = at + 0x40 if index + 1 < len(capabilities) else 0
        data[at : at + 4] = (id_ | version << 16 | following << 20).to_bytes(4, "little")
        data[at + 4 : at + 4 + len(body)] = body
    return bytes(data)


def test_states_of_real_functions() -> None:
    port = states_of(dump("root_port"))
    assert port is not None
    assert port.acs == Acs(True, ("SV", "TB", "RR", "CR", "UF", "DT"), ("SV", "RR", "CR", "UF"))
    assert port.aer == Aer(True, ("correctable", "nonfatal", "fatal"))
    assert (port.ats, port.pri, port.pasid, port.rebar) == (OFF, OFF, OFF, Rebar(False))
    edu = states_of(dump("edu"))
    assert edu is not None and (edu.acs, edu.aer) == (Acs(False), Aer(False))


def test_what_has_not_been_read_is_not_known() -> None:
    whole = dump("root_port")
    for data in (b"", whole[:64], whole[:128], b"\xff" * 4096):
        assert states_of(data) is None
    conventional = states_of(whole[:256])
    assert conventional is not None and conventional.acs == Acs(False)


def test_switches() -> None:
    data = space(
        (0x0F, 1, bytes.fromhex("0500 0080")),
        (0x13, 1, bytes.fromhex("0100 0000")),
        (0x1B, 1, bytes.fromhex("0014 0000")),
        (0x0D, 1, bytes.fromhex("1f00 1100")),
        (0x01, 2, bytes(40)),
        port=0,
    )
    found = states_of(data)
    assert found is not None
    assert (found.ats, found.pri, found.pasid) == (
        Switch(True, True),
        Switch(True, True),
        Switch(True, False),
    )
    assert found.acs == Acs(True, ("SV", "TB", "RR", "CR", "UF"), ("SV", "UF"))
    assert found.aer == Aer(True, ("correctable", "fatal"))


def test_virtual_functions_share() -> None:
    virtual, physical = (
        states_of(space()),
        states_of(space((0x13, 1, b"\1"), (0x1B, 1, bytes.fromhex("0014 0100")))),
    )
    assert virtual is not None
    both = shared(virtual, physical)
    assert (both.pri, both.pasid, both.ats) == (Switch(True, True), Switch(True, True), OFF)
    unknown = shared(virtual, None)
    assert (unknown.pri, unknown.pasid, unknown.ats) == (None, None, OFF)


def entry(possible: int, control: int) -> bytes:
    return possible.to_bytes(4, "little") + control.to_bytes(4, "little")


def test_resizable_bars() -> None:
    # BAR 0: 256 MiB of 64, 128, 256 MiB; BAR 2: 1 MiB, and up to 256 TiB, whose bit is in the control register.
    body = entry(1 << 10 | 1 << 11 | 1 << 12, 2 << 5 | 8 << 8) + entry(1 << 4, 2 | 1 << 16)
    found = states_of(space((0x15, 1, body)))
    assert found is not None
    assert found.rebar == Rebar(
        True,
        (
            ResizableBar(0, 256 * MEBIBYTE, (64 * MEBIBYTE, 128 * MEBIBYTE, 256 * MEBIBYTE)),
            ResizableBar(2, MEBIBYTE, (MEBIBYTE, 1 << 48)),
        ),
    )


@given(st.binary(max_size=96))
def test_hostile_bars(body: bytes) -> None:
    found = states_of(space((0x15, 1, body)))
    assert found is not None and len(found.rebar.bars) <= 7


def function(address: str, config: bytes) -> PciFunction:
    return PciFunction(address, f"pci0000:00/{address}", PciIds("080700", *["8086"] * 4), config)


def association(devices: int, version: int, first: int = 0xFF, last: int = 0) -> tuple[int, int, bytes]:
    return 0x07, version, devices.to_bytes(4, "little") + bytes((0, first, last, 0))


def test_event_collectors() -> None:
    """As rcec_assoc_rciep and walk_rcec in drivers/pci/pcie/rcec.c."""
    own = function("0000:6a:00.4", space(association(1 << 2 | 1 << 0x1F, 1, 0, 0xFF), port=10))
    other = function("0000:6a:01.4", space(association(0, 2, 0x6B, 0x6D), port=10))
    nothing = function("0000:6a:03.4", space(port=10))
    endpoints = {
        address: function(address, space(port=9))
        for address in ("0000:6a:02.0", "0000:6a:03.0", "0000:6b:00.0", "0000:6e:00.0", "0001:6b:00.0")
    }
    ordinary = function("0000:6a:02.1", space(port=0))
    found = (own, other, nothing, ordinary, *endpoints.values())
    assert {a: event_collectors.collector_of(f, found) for a, f in endpoints.items()} == {
        "0000:6a:02.0": "0000:6a:00.4",
        "0000:6a:03.0": None,
        "0000:6b:00.0": "0000:6a:01.4",
        "0000:6e:00.0": None,
        "0001:6b:00.0": None,
    }
    assert event_collectors.endpoints_of(own, found) == ["0000:6a:02.0"]
    assert event_collectors.endpoints_of(other, found) == ["0000:6b:00.0"]
    assert event_collectors.endpoints_of(nothing, found) == []
    assert not event_collectors.is_collected(ordinary) and not event_collectors.is_collector(ordinary)
    assert (port_type(b""), port_type(own.config[:64])) == (None, None)
