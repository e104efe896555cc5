"""The manual's section on the errors of the kernel, in roff, made from the tables that ``hint`` comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vfioctl.errors import errno_name
from vfioctl.policy.refusals import ON_SPAPR, TABLE, State
from vfioctl.policy.refusals.gaps import gaps
from vfioctl.policy.refusals.state import Refusal
from vfioctl.policy.refusals.words import Meaning, Table

#: Calls that are no C names.
_CALLS = {
    "open container": "open /dev/vfio/vfio",
    "open group": "open /dev/vfio/GROUP",
    "open iommufd": "open /dev/iommu",
    "open device": "open /dev/vfio/devices/vfioN",
    "mmap": "mmap of memory",
    "madvise": "madvise of memory",
    "read": "read of memory",
    "write": "write of memory",
    "write bind vfio-platform": "write to bind of vfio-platform",
    "write to sysfs": "write to any file of sysfs",
    "set access": "chown, chmod and setfacl of a node",
    "load module": "modprobe",
}
#: Makes roff of text.
Prose = Callable[[str], list[str]]
#: Its lines.
Paragraph = tuple[str, ...]


class Entry(NamedTuple):
    """The errnos of a call that mean the same, and the paragraphs that say what."""

    call: str
    errnos: tuple[str, ...]
    text: tuple[Paragraph, ...]
    codes: tuple[str, ...]


def entries(table: Table) -> list[Entry]:
    """A table with neutral words in the gaps, in its order; the errnos of a call that mean the same are together."""
    found: dict[tuple[str, tuple[Paragraph, ...]], Entry] = {}
    for (call, number), meanings in table.items():
        text = tuple(said(meaning, call, number) for meaning in meanings)
        codes = tuple(dict.fromkeys(meaning.code for meaning in meanings))
        entry = found.setdefault((call, text), Entry(name_of(call), (), text, codes))
        found[call, text] = entry._replace(errnos=(*entry.errnos, errno_name(number)))
    return list(found.values())


def said(meaning: Meaning, call: str, number: int) -> Paragraph:
    """A meaning with neutral words in the gaps: cause, cure and evidence."""
    words = gaps(Refusal(call, number, State()))
    message = f"{meaning.message.format_map(words)} [{meaning.code}]"
    if meaning.when is not None:
        message = f"If {meaning.when.words}: {message}"
    paragraph = [message, f"Cure: {meaning.hint.format_map(words)}"]
    if meaning.looks:
        paragraph.append("Evidence: " + ", ".join(look.file.format_map(words) for look in meaning.looks))
    return tuple(paragraph)


def name_of(call: str) -> str:
    """How the manual names a call."""
    return _CALLS.get(call) or call.replace("write ", "write to ", 1)


def section(prose: Prose) -> list[str]:
    """The whole section: by call; what is the same for several calls is said at the first, which names the others."""
    lines = [line for each in _by_call(entries(TABLE), prose) for line in each]
    lines += [".SS With sPAPR (POWER)", "These mean something else there:"]
    for entry in entries(ON_SPAPR):
        lines += _entry(f"{entry.call} {', '.join(entry.errnos)}", entry.text, prose)
    lines += [".SS Codes"]
    for code, where in sorted(places().items()):
        calls = "; ".join(f"{call} {', '.join(names)}" for call, names in where.items())
        lines += _entry(code, ((calls,),), prose)
    return lines


def places() -> dict[str, dict[str, list[str]]]:
    """Where each code comes from: the errnos by call."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in (*entries(TABLE), *entries(ON_SPAPR)):
        for code in entry.codes:
            names = found.setdefault(code, {}).setdefault(entry.call, [])
            names += [name for name in entry.errnos if name not in names]
    return found


def _by_call(found: list[Entry], prose: Prose) -> Iterator[list[str]]:
    alike: dict[tuple[tuple[str, ...], tuple[Paragraph, ...]], list[str]] = {}
    for entry in found:
        alike.setdefault((entry.errnos, entry.text), []).append(entry.call)
    heading = None
    calls = list(dict.fromkeys(entry.call for entry in found))
    for entry in sorted(found, key=lambda entry: calls.index(entry.call)):
        first, *others = alike[entry.errnos, entry.text]
        if first != entry.call:
            continue
        if entry.call != heading:
            heading = entry.call
            yield [".SS " + " ".join(prose(heading))]
        names = ", ".join(entry.errnos)
        also = ((f"The same of {', '.join(others)}.",),) if others else ()
        yield _entry(names, (*entry.text, *also), prose)


def _entry(tag: str, text: tuple[Paragraph, ...], prose: Prose) -> list[str]:
    lines = [".TP", ".B " + " ".join(prose(tag))]
    for index, paragraph in enumerate(text):
        lines += [".IP"] if index else []
        for number, line in enumerate(paragraph):
            lines += ([".br"] if number else []) + prose(line)
    return lines
