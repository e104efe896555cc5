"""Lists of mappings, as scripts write them: parsed strictly (floor 3, pure)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vfioctl.errors import UsageError, VfioctlError, visible
from vfioctl.policy.mapping import Want, page_size_of
from vfioctl.policy.sizes import LIMIT, parse_iova, parse_size

_KEYS = frozenset({"iova", "size", "prot", "source", "file_offset"})
PROTECTIONS = ("rw", "r", "w")


def parse(text: str, prot: str = "rw", source: str = "anonymous") -> list[Want]:
    """The wants of a list: a line each, ``IOVA SIZE [PROT [SOURCE [OFFSET]]]`` with ``-`` for an IOVA that vfioctl is
    to choose, or a JSON object with the keys iova, size, prot, source and file_offset (iova and size as numbers or as
    words of a command line). Empty lines and lines that begin with # say nothing. ``prot`` and ``source`` stand for
    what a line leaves out.

    Raises UsageError ``list-invalid`` with the number of the line.
    """
    wants = [
        each for number, line in enumerate(text.split("\n"), 1) for each in _line(number, line, prot, source)
    ]
    if not wants:
        raise UsageError("the list names no mapping", code="list-invalid", hint=_HINT)
    return wants


_HINT = "a line is IOVA SIZE [PROT [SOURCE [OFFSET]]], as in '0x100000 2M rw', or a JSON object"


def _line(number: int, line: str, prot: str, source: str) -> Iterator[Want]:
    line = line.strip(" \t\r")
    if not line or line.startswith("#"):
        return
    try:
        fields = _json(line) if line.startswith("{") else _words(line)
        yield _want(fields, number, prot, source)
    except VfioctlError as error:
        raise UsageError(
            f"line {number}: {error.message}", code="list-invalid", hint=error.hint, details={"line": number}
        ) from error


def _words(line: str) -> dict[str, Any]:
    words = line.split()
    if not 2 <= len(words) <= 5:
        raise UsageError(f"{len(words)} words are too {'few' if len(words) < 2 else 'many'}", hint=_HINT)
    fields: dict[str, Any] = dict(zip(("iova", "size", "prot", "source", "file_offset"), words, strict=False))
    if fields["iova"] == "-":
        del fields["iova"]
    return fields


def _json(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {visible(str(error))}", hint=_HINT) from error
    assert isinstance(fields, dict)
    unknown = sorted(fields.keys() - _KEYS)
    if unknown:
        raise UsageError(
            f"there is no key {visible(unknown[0])!r}", hint=f"keys are {', '.join(sorted(_KEYS))}"
        )
    if "size" not in fields:
        raise UsageError("the size is missing", hint=_HINT)
    return fields


def _want(fields: dict[str, Any], number: int, prot: str, source: str) -> Want:
    iova = fields.get("iova")
    want = Want(
        size=_number(fields["size"], parse_size, "size"),
        iova=None if iova is None else _number(iova, parse_iova, "iova"),
        prot=fields.get("prot") or prot,
        source=fields.get("source") or source,
        offset=_offset(fields.get("file_offset") or 0),
        line=number,
    )
    if not want.size:
        raise UsageError("a size must be more than 0", hint=_HINT)
    if want.prot not in PROTECTIONS:
        raise UsageError(f"{visible(str(want.prot))!r} is no protection", hint="protections are rw, r and w")
    if not isinstance(want.source, str):
        raise UsageError("a source is a word", hint=_HINT)
    page_size_of(want.source)
    if want.offset and want.source != "file":
        raise UsageError("an offset is for files", hint=_HINT)
    return want


def _number(value: Any, parse_text: Any, what: str) -> int:
    if isinstance(value, str):
        return int(parse_text(value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LIMIT:
        return value
    raise UsageError(f"{what} is not a number that fits into 64 bits", hint=_HINT)


def _offset(value: Any) -> int:
    return 0 if value in (0, "0") else _number(value, parse_size, "file_offset")
