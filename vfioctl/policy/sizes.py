"""Sizes and IOVAs as people write them (floor 3, pure)."""

from __future__ import annotations

import re

from vfioctl.errors import UsageError

#: Both are unsigned 64-bit numbers in the kernel's structs.
LIMIT = 1 << 64

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}

# re.ASCII and fullmatch: int() would also take 1_000, full-width digits and surrounding blanks. The number of
# digits is limited because int() refuses thousands of them with an error of its own.
_SIZE = re.compile(r"(?P<number>[0-9]{1,40})(?P<unit>[KMGTP]?)(?:(?<=[KMGTP])IB)?", re.ASCII | re.IGNORECASE)
_HEX = re.compile(r"0x[0-9a-f]+", re.ASCII | re.IGNORECASE)
_IOVA = re.compile(r"(?:0x)?[0-9a-f]+", re.ASCII | re.IGNORECASE)

_NUMBER = re.compile(r"0x[0-9a-f]{1,40}|0|[1-9][0-9]{0,40}", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of ``4096``, ``0x1000``, ``4K``, ``2M``, ``1GiB``; units are powers of 1024.

    UsageError (``size-invalid``) for anything else, for 0 and for what does not fit into 64 bits.
    """
    if match := _SIZE.fullmatch(text):
        size = int(match["number"]) * _UNITS[match["unit"].upper()]
    elif _HEX.fullmatch(text):
        size = int(text, 16)
    else:
        raise UsageError(f"{text!r} is not a size", code="size-invalid", hint=_size_hint(text))
    if not 0 < size < LIMIT:
        why = "a size must be more than 0" if size == 0 else "a size must fit into 64 bits"
        raise UsageError(f"size {text}: {why}", code="size-invalid", hint=_EXAMPLES)
    return size


def format_size(size: int) -> str:
    """The shortest exact spelling that :func:`parse_size` takes: ``2M``, ``4K``, ``4097``."""
    for unit, factor in reversed(_UNITS.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return "0"


def parse_iova(text: str) -> int:
    """An IOVA: hexadecimal, with or without ``0x``. UsageError (``iova-invalid``) for anything else."""
    if not _IOVA.fullmatch(text):
        raise UsageError(
            f"{text!r} is not an IOVA",
            code="iova-invalid",
            hint="an IOVA is written in hexadecimal, with or without 0x: 0x100000 or 100000 is 1 MiB",
        )
    iova = int(text, 16)
    if iova >= LIMIT:
        raise UsageError(f"IOVA {text} does not fit into 64 bits", code="iova-invalid")
    return iova


def parse_number(text: str, what: str) -> int:
    """A number of up to 64 bits, decimal or with ``0x`` hexadecimal; ``what`` it is, for the UsageError."""
    if not _NUMBER.fullmatch(text) or (number := int(text, 0)) >= LIMIT:
        raise UsageError(
            f"{what}: {text!r} is no number of 64 bits",
            code="number",
            hint="hexadecimal with 0x, or decimal without leading zeros",
            subject=text,
        )
    return number


def format_iova(iova: int) -> str:
    """``0x100000``."""
    return f"{iova:#x}"


_EXAMPLES = "Write a size as 4096, 0x1000, 4K, 2M or 1G (K, M, G are powers of 1024)."


def _size_hint(text: str) -> str:
    if re.fullmatch(r"-[0-9].*", text):
        return "A size cannot be negative. " + _EXAMPLES
    if re.fullmatch(r"[0-9]+[.,][0-9]+[KMGTP].*", text, re.IGNORECASE):
        return "A size is a whole number: write 1536M for 1.5G. " + _EXAMPLES
    if re.fullmatch(r"[0-9]+[KMGTP]B", text, re.IGNORECASE):
        return f"{text[-2:]} may mean powers of 1000 or of 1024: write {text[:-1]}. " + _EXAMPLES
    return _EXAMPLES
