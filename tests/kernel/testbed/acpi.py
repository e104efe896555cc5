"""The DMAR table (Intel VT-d specification, chapter 8) with a firmware's 1:1 region, which QEMU cannot be asked for.

The kernel takes a table from kernel/firmware/acpi/ at the start of its initial RAM file system instead of the
firmware's when the identifiers are the same and the revision is higher
(Linux, Documentation/admin-guide/acpi/initrd_table_override.rst).
"""

from __future__ import annotations

import struct

OVERRIDE_PATH = "kernel/firmware/acpi/dmar.aml"

# As QEMU fills them in (hw/i386/acpi-build.c, include/hw/i386/intel_iommu.h).
OEM_ID, OEM_TABLE_ID, OEM_REVISION = b"BOCHS ", b"BXPC    ", 1
REGISTERS = 0xFED90000
ADDRESS_WIDTH = 39  # bits
IOAPIC_BUS = 0xFF

DRHD, RMRR = 0, 1
INCLUDE_ALL_DEVICES = 1
INTERRUPT_REMAPPING = 1
ENDPOINT, IOAPIC = 1, 3


def dmar(device: int, function: int, base: int, size: int) -> bytes:
    """A DMAR table for QEMU's VT-d with a 1:1 region of ``size`` bytes at ``base`` for 00:``device``.``function``."""
    unit = _structure(
        DRHD,
        struct.pack("<BxHQ", INCLUDE_ALL_DEVICES, 0, REGISTERS) + _scope(IOAPIC, IOAPIC_BUS, 0, 0),
    )
    region = _structure(
        RMRR,
        struct.pack("<2xHQQ", 0, base, base + size - 1) + _scope(ENDPOINT, 0, device, function),
    )
    body = struct.pack("<BB10x", ADDRESS_WIDTH - 1, INTERRUPT_REMAPPING) + unit + region
    header = struct.pack(
        "<4sIBB6s8sI4sI",
        *(b"DMAR", 36 + len(body), 1, 0, OEM_ID, OEM_TABLE_ID, OEM_REVISION + 1, b"BXPC", 1),
    )
    table = bytearray(header + body)
    table[9] = -sum(table) & 0xFF  # all bytes of a table add up to zero
    return bytes(table)


def _structure(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, 4 + len(data)) + data


def _scope(kind: int, bus: int, device: int, function: int) -> bytes:
    return struct.pack("<BB2xBBBB", kind, 8, 0, bus, device, function)
