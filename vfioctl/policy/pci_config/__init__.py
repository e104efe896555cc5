"""PCI configuration space understood: bytes -> registers and capabilities (floor 3, pure).

Whatever the bytes are: a chain that leaves the space, or comes back to where it was, ends there and is said to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.errors import UsageError
from vfioctl.policy.pci_config import fields
from vfioctl.policy.pci_config.fields import Value
from vfioctl.policy.pci_config.registers import Register, registers_of

#: Bytes of a conventional device's space; what lies behind is PCI Express's extended space.
CONVENTIONAL = 256
_HEADER = 64
_COMMAND = 0x04
_STATUS, _STATUS_CAPABILITIES = 0x06, 0x10
_HEADER_TYPE, _CAPABILITY_LIST, _CARDBUS_CAPABILITY_LIST = 0x0E, 0x34, 0x14


class Capability(NamedTuple):
    """A capability at ``offset``; ``version`` and an ``id`` of 16 bits only in extended space."""

    name: str
    id: int
    offset: int
    version: int | None
    fields: dict[str, Value]


class Config(NamedTuple):
    """A decoded space. ``registers`` with their values; ``problems``: what cannot be trusted, in words."""

    header_type: int
    multifunction: bool
    registers: tuple[tuple[Register, int], ...]
    capabilities: tuple[Capability, ...]
    problems: tuple[str, ...]


def decode(data: bytes) -> Config:
    """The registers and capabilities of the first ``len(data)`` bytes of a space; fewer than 64 are taken for zeros."""
    silent = is_gone(data)
    data = data.ljust(_HEADER, b"\0")
    problems: list[str] = []
    kind = data[_HEADER_TYPE]
    if silent:
        problems.append("all bits are set: the device does not answer (gone, in D3cold, or its link is down)")
        return Config(kind & 0x7F, False, (), (), tuple(problems))
    if kind & 0x7F > 2:
        problems.append(f"header type {kind & 0x7F} is not known")
    found = tuple((register, number(data, register)) for register in registers_of(kind & 0x7F))
    chains = [*_standard(data, problems), *_extended(data, problems)]
    return Config(kind & 0x7F, bool(kind & 0x80), found, tuple(chains), tuple(problems))


def is_gone(data: bytes) -> bool:
    """Whether a space reads as what a bus answers for a device that is not there. The ids alone do not tell: those of a
    virtual function are ones, too."""
    return set(data[:_HEADER]) == {0xFF}


class Decoding(NamedTuple):
    """Which accesses the device answers, by the COMMAND of its space; ``gone``: it does not answer at all."""

    io: bool
    memory: bool
    gone: bool


def decoding(data: bytes) -> Decoding:
    """What the first bytes of a space say of accesses to the device's other regions."""
    return Decoding(bool(data[_COMMAND] & 1), bool(data[_COMMAND] & 2), is_gone(data))


def number(data: bytes, register: Register) -> int:
    """The value of a register; all of PCI is little-endian."""
    return int.from_bytes(data[register.offset : register.offset + register.width], "little")


def find_register(data: bytes, text: str) -> Register:
    """The register that ``text`` names: COMMAND, PCI_COMMAND, command, or CAP_EXP+8 (4 bytes wide), as setpci has it.

    Raises UsageError for a name that this device's header or chains do not have.
    """
    name, plus, more = text.strip().upper().partition("+")
    name = name.removeprefix("PCI_")
    config = decode(data)
    try:
        distance = int(more, 16) if plus else 0
    except ValueError as error:
        raise UsageError(
            f"{text!r}: {more!r} is no hexadecimal offset", subject=text, code="register"
        ) from error
    for register, _ in config.registers:
        if register.name == name:
            return Register(name, register.offset + distance, register.width)
    for capability in config.capabilities:
        if capability.name == name:
            return Register(name, capability.offset + distance, 4)
    known = [
        *(register.name for register, _ in config.registers),
        *(each.name for each in config.capabilities),
    ]
    raise UsageError(
        f"this device has no register or capability {text!r}",
        hint=f"it has {', '.join(known)}" if known else "; ".join(config.problems),
        subject=text,
        code="register",
    )


def _standard(data: bytes, problems: list[str]) -> Iterator[Capability]:
    if not data[_STATUS] & _STATUS_CAPABILITIES:
        return
    cardbus = data[_HEADER_TYPE] & 0x7F == 2
    offset = data[_CARDBUS_CAPABILITY_LIST if cardbus else _CAPABILITY_LIST] & ~3
    seen: set[int] = set()
    while offset:
        if offset < _HEADER or offset in seen or offset + 2 > len(data):
            problems.append(f"the chain of capabilities is broken at {offset:#04x}")
            return
        seen.add(offset)
        id_ = data[offset]
        kind = fields.STANDARD.get(id_, fields.Kind(f"CAP{id_:02X}"))
        yield Capability(kind.name, id_, offset, None, _fields(data[:CONVENTIONAL], offset, kind))
        offset = data[offset + 1] & ~3


def _extended(data: bytes, problems: list[str]) -> Iterator[Capability]:
    offset = CONVENTIONAL
    seen: set[int] = set()
    while len(data) > CONVENTIONAL:
        if offset < CONVENTIONAL or offset in seen or offset + 4 > len(data):
            problems.append(f"the chain of extended capabilities is broken at {offset:#05x}")
            return
        seen.add(offset)
        header = int.from_bytes(data[offset : offset + 4], "little")
        if header in (
            0,
            0xFFFFFFFF,
        ):  # the first is there, but empty: no extended capability, or none may be seen
            return
        id_ = header & 0xFFFF
        # An id of 0 is a link only: VFIO puts it in the place of a first capability that it hides.
        if id_:
            kind = fields.EXTENDED.get(id_, fields.Kind(f"ECAP{id_:04X}"))
            yield Capability(kind.name, id_, offset, header >> 16 & 0xF, _fields(data, offset, kind))
        offset = header >> 20 & ~3
        if not offset:
            return


def _fields(data: bytes, base: int, kind: fields.Kind) -> dict[str, Value]:
    """The fields that lie within the space."""
    found: dict[str, Value] = {}
    for field in kind.fields:
        start = base + field.offset
        if start + field.width <= len(data):
            found[field.key] = field.of(int.from_bytes(data[start : start + field.width], "little"))
    return found
