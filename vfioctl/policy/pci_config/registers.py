"""The registers of PCI configuration headers, by the names of pciutils (setpci --dumpregs), as data (floor 3)."""

from __future__ import annotations

from typing import NamedTuple


class Register(NamedTuple):
    """A register: ``offset`` and ``width`` in bytes."""

    name: str
    offset: int
    width: int


def _registers(text: str) -> tuple[Register, ...]:
    words = (line.split() for line in text.strip().splitlines())
    return tuple(Register(name, int(offset, 16), int(width)) for offset, width, name in words)


#: Those that every header has.
COMMON = _registers("""
    00 2 VENDOR_ID
    02 2 DEVICE_ID
    04 2 COMMAND
    06 2 STATUS
    08 1 REVISION
    09 1 CLASS_PROG
    0a 2 CLASS_DEVICE
    0c 1 CACHE_LINE_SIZE
    0d 1 LATENCY_TIMER
    0e 1 HEADER_TYPE
    0f 1 BIST
    34 1 CAPABILITIES
    3c 1 INTERRUPT_LINE
    3d 1 INTERRUPT_PIN
""")

#: By header type: an ordinary device, and a PCI-to-PCI bridge.
BY_HEADER_TYPE = {
    0: _registers("""
        10 4 BASE_ADDRESS_0
        14 4 BASE_ADDRESS_1
        18 4 BASE_ADDRESS_2
        1c 4 BASE_ADDRESS_3
        20 4 BASE_ADDRESS_4
        24 4 BASE_ADDRESS_5
        28 4 CARDBUS_CIS
        2c 2 SUBSYSTEM_VENDOR_ID
        2e 2 SUBSYSTEM_ID
        30 4 ROM_ADDRESS
        3e 1 MIN_GNT
        3f 1 MAX_LAT
    """),
    1: _registers("""
        10 4 BASE_ADDRESS_0
        14 4 BASE_ADDRESS_1
        18 1 PRIMARY_BUS
        19 1 SECONDARY_BUS
        1a 1 SUBORDINATE_BUS
        1b 1 SEC_LATENCY_TIMER
        1c 1 IO_BASE
        1d 1 IO_LIMIT
        1e 2 SEC_STATUS
        20 2 MEMORY_BASE
        22 2 MEMORY_LIMIT
        24 2 PREF_MEMORY_BASE
        26 2 PREF_MEMORY_LIMIT
        28 4 PREF_BASE_UPPER32
        2c 4 PREF_LIMIT_UPPER32
        30 2 IO_BASE_UPPER16
        32 2 IO_LIMIT_UPPER16
        38 4 BRIDGE_ROM_ADDRESS
        3e 2 BRIDGE_CONTROL
    """),
}


def registers_of(header_type: int) -> tuple[Register, ...]:
    """The registers of a header by its type (without the multi-function bit), in the order of their offsets."""
    return tuple(sorted(COMMON + BY_HEADER_TYPE.get(header_type, ()), key=lambda register: register.offset))
