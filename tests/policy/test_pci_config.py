"""Configuration space decoded: what lspci -vv says of real dumps, and bytes that mean harm.

The dumps are lspci -xxxx of QEMU 7.2's devices under Linux 6.1; rows of zeros are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.errors import UsageError
from vfioctl.policy import pci_config
from vfioctl.policy.pci_config.fields import EXTENDED, STANDARD
from vfioctl.policy.pci_config.registers import Register

DUMPS = Path(__file__).parent / "config_dumps"


def dump(name: str) -> bytes:
    text = (DUMPS / f"{name}.txt").read_text(encoding="ascii")
    data = bytearray(int(text.split()[2]))
    for offset, row in re.findall(r"^([0-9a-f]+): (.*)$", text, re.MULTILINE):
        data[int(offset, 16) : int(offset, 16) + 16] = bytes.fromhex(row)
    return bytes(data)


def chain(name: str) -> dict[str, int]:
    return {each.name: each.offset for each in pci_config.decode(dump(name)).capabilities}


def fields(name: str, capability: str) -> dict[str, object]:
    (found,) = (each for each in pci_config.decode(dump(name)).capabilities if each.name == capability)
    return dict(found.fields)


def test_registers_have_their_names_and_values() -> None:
    config = pci_config.decode(dump("e1000e"))
    values = {register.name: value for register, value in config.registers}
    assert (config.header_type, config.multifunction, config.problems) == (0, False, ())
    assert (values["VENDOR_ID"], values["DEVICE_ID"], values["CLASS_DEVICE"]) == (0x8086, 0x10D3, 0x0200)
    assert (values["BASE_ADDRESS_0"], values["COMMAND"] & 7, values["INTERRUPT_PIN"]) == (0xFE600000, 7, 1)
    assert "PRIMARY_BUS" not in values
    offsets = [register.offset for register, _ in config.registers]
    assert offsets == sorted(offsets)


def test_a_bridge_has_its_own_registers() -> None:
    config = pci_config.decode(dump("root_port"))
    values = {register.name: value for register, value in config.registers}
    assert config.header_type == 1
    assert (values["SECONDARY_BUS"], values["CLASS_DEVICE"]) == (2, 0x0604)
    assert "BASE_ADDRESS_2" not in values


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("edu", {"CAP_MSI": 0x40}),
        ("e1000e", {"CAP_PM": 0xC8, "CAP_MSI": 0xD0, "CAP_EXP": 0xE0, "CAP_MSIX": 0xA0, "ECAP_AER": 0x100,
                    "ECAP_DSN": 0x140}),
        ("nvme", {"CAP_MSIX": 0x40, "CAP_EXP": 0x80, "CAP_PM": 0x60, "ECAP_ARI": 0x100, "ECAP_SRIOV": 0x120}),
        ("root_port", {"CAP_EXP": 0x54, "CAP_MSIX": 0x48, "CAP_SSVID": 0x40, "ECAP_AER": 0x100, "ECAP_ACS": 0x148}),
        ("conv_bridge", {"CAP_MSI": 0x8C, "CAP_PM": 0x84, "CAP_EXP": 0x48, "CAP_HOTPLUG": 0x40, "ECAP_AER": 0x100}),
    ],
)  # fmt: skip
def test_chains_are_those_of_lspci(name: str, expected: dict[str, int]) -> None:
    assert chain(name) == expected


def test_fields_are_those_of_lspci() -> None:
    assert fields("e1000e", "CAP_MSIX") == {
        "enabled": True, "masked": False, "vectors": 5, "table_bar": 3, "table_offset": 0, "pba_bar": 3,
        "pba_offset": 0x2000,
    }  # fmt: skip
    assert fields("e1000e", "CAP_PM")["version"] == 2
    assert fields("e1000e", "ECAP_DSN") == {"serial": 0x525400FFFF123456}
    express = fields("nvme", "CAP_EXP")
    assert (express["version"], express["type"], express["flr"]) == (2, "endpoint", True)
    assert (express["max_payload"], express["max_read_request"]) == (128, 128)
    assert (express["link_speed"], express["link_width"]) == ("2.5 GT/s", 1)
    virtual = fields("nvme", "ECAP_SRIOV")
    assert (virtual["total_vfs"], virtual["num_vfs"], virtual["vf_device_id"]) == (4, 0, 0x10)
    assert (virtual["page_sizes_supported"], virtual["page_size"]) == (0x553, 1)
    acs = fields("root_port", "ECAP_ACS")
    assert acs["source_validation_enabled"] and not acs["egress_control"] and acs["direct_translated"]
    assert fields("root_port", "CAP_SSVID") == {"vendor": 0x1B36, "device": 0}
    assert fields("edu", "CAP_MSI")["vectors"] == 1


def with_capability(id_: int, body: bytes, extended: bool = False) -> bytes:
    data = bytearray(4096 if extended else 256)
    if extended:
        data[0x100:0x104] = (id_ | 1 << 16).to_bytes(4, "little")
        data[0x104 : 0x104 + len(body)] = body
    else:
        data[0x06], data[0x34], data[0x40] = 0x10, 0x40, id_
        data[0x42 : 0x42 + len(body)] = body
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (with_capability(0x0F, bytes.fromhex("2500 0580"), True), "ECAP_ATS",
         {"queue_depth": 5, "page_aligned": True, "smallest_unit": 5, "enabled": True}),
        (with_capability(0x1B, bytes.fromhex("0614 0300"), True), "ECAP_PASID",
         {"execute": True, "privileged": True, "max_width": 20, "enabled": True, "execute_enabled": True,
          "privileged_enabled": False}),
        (with_capability(0x13, bytes.fromhex("0100 0001 20000000 10000000"), True), "ECAP_PRI",
         {"enabled": True, "reset": False, "failed": False, "stopped": True, "capacity": 32, "allocated": 16}),
        (with_capability(0x23, bytes.fromhex("981e 0102 3412"), True), "ECAP_DVSEC",
         {"vendor": 0x1E98, "revision": 1, "length": 0x20, "id": 0x1234}),
        (with_capability(0x0B, bytes.fromhex("0700 0501"), True), "ECAP_VNDR", {"id": 7, "revision": 5, "length": 16}),
        (with_capability(0x03, bytes.fromhex("0880")), "CAP_VPD", {"address": 8, "done": True}),
        (with_capability(0x09, bytes.fromhex("14")), "CAP_VNDR", {"length": 20}),
        (with_capability(0x13, bytes.fromhex("0603")), "CAP_AF",
         {"transactions_pending_known": True, "flr": True, "transactions_pending": False}),
    ],
)  # fmt: skip
def test_capabilities_that_no_dump_has(data: bytes, name: str, expected: dict[str, object]) -> None:
    (found,) = pci_config.decode(data).capabilities
    assert (found.name, dict(found.fields)) == (name, expected)


def test_ids_are_those_of_pci_regs() -> None:
    standard = {kind.name: number for number, kind in STANDARD.items()}
    extended = {kind.name: number for number, kind in EXTENDED.items()}
    assert (standard["CAP_PM"], standard["CAP_EXP"], standard["CAP_MSIX"], standard["CAP_EA"]) == (
        1,
        16,
        17,
        20,
    )
    assert (extended["ECAP_ACS"], extended["ECAP_PASID"], extended["ECAP_DVSEC"]) == (0x0D, 0x1B, 0x23)
    assert (extended["ECAP_32GT"], extended["ECAP_DOE"]) == (0x2A, 0x2E)


def test_a_capability_that_is_not_known_is_named_by_its_id() -> None:
    assert pci_config.decode(with_capability(0x77, b"")).capabilities[0].name == "CAP77"
    assert pci_config.decode(with_capability(0x7777, b"", True)).capabilities[0].name == "ECAP7777"


def test_a_first_extended_capability_that_is_hidden_is_a_link() -> None:
    data = bytearray(dump("nvme"))
    data[0x100:0x102] = b"\0\0"
    assert "ECAP_SRIOV" in {each.name for each in pci_config.decode(bytes(data)).capabilities}


def test_chains_that_lead_nowhere_end() -> None:
    data = bytearray(dump("edu"))
    data[0x41] = 0x40
    config = pci_config.decode(bytes(data))
    assert config.problems == ("the chain of capabilities is broken at 0x40",)
    assert len(config.capabilities) == 1
    data = bytearray(dump("nvme"))
    data[0x122:0x124] = (0x1001).to_bytes(2, "little")
    assert pci_config.decode(bytes(data)).problems == (
        "the chain of extended capabilities is broken at 0x100",
    )


def test_a_device_that_is_gone_is_recognised() -> None:
    config = pci_config.decode(b"\xff" * 256)
    assert config.registers == () and config.capabilities == ()
    assert "does not answer" in config.problems[0]


def test_a_virtual_function_is_not_gone() -> None:
    """Its ids read as ones, and nothing else does."""
    data = b"\xff" * 4 + dump("nvme")[4:]
    assert not pci_config.is_gone(data) and not pci_config.is_gone(b"")
    assert {each.name for each in pci_config.decode(data).capabilities} == set(chain("nvme"))
    assert pci_config.is_gone(b"\xff" * 64 + bytes(192)) and pci_config.is_gone(b"\xff" * 8)


@given(st.binary(max_size=64), st.sampled_from([0, 256, 4096]), st.randoms(use_true_random=False))
def test_hostile_bytes_never_crash(start: bytes, size: int, random: object) -> None:
    data = bytearray(random.randbytes(size))  # type: ignore[attr-defined]
    data[: len(start)] = start
    config = pci_config.decode(bytes(data))
    assert len({each.offset for each in config.capabilities}) == len(config.capabilities)
    assert all(register.offset + register.width <= 64 for register, _ in config.registers)


@given(
    st.dictionaries(st.integers(0, 0xFF), st.integers(0, 0xFF)),
    st.dictionaries(st.integers(0x40, 0x3FF), st.integers(0, 0xFFFFFFFF), max_size=64),
)
def test_hostile_chains_end(header: dict[int, int], links: dict[int, int]) -> None:
    data = bytearray(4096)
    for offset, byte in header.items():
        data[offset] = byte
    data[0x06] |= 0x10
    for word, value in links.items():
        data[word * 4 : word * 4 + 4] = value.to_bytes(4, "little")
    assert len(pci_config.decode(bytes(data)).capabilities) <= 48 + 960


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COMMAND", Register("COMMAND", 4, 2)),
        ("pci_command", Register("COMMAND", 4, 2)),
        ("CAP_EXP+8", Register("CAP_EXP", 0xE8, 4)),
        ("cap_msix+2", Register("CAP_MSIX", 0xA2, 4)),
        ("ECAP_AER", Register("ECAP_AER", 0x100, 4)),
        ("BASE_ADDRESS_0", Register("BASE_ADDRESS_0", 0x10, 4)),
    ],
)
def test_registers_are_found_by_name(text: str, expected: Register) -> None:
    assert pci_config.find_register(dump("e1000e"), text) == expected


@pytest.mark.parametrize("text", ["", "NOTHING", "CAP_AGP", "PRIMARY_BUS", "CAP_EXP+x", "+4"])
def test_a_register_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        pci_config.find_register(dump("e1000e"), text)
    assert caught.value.code == "register"
