"""The hierarchy of PCI as a graph for Graphviz: functions are nodes, groups are clusters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from vfioctl.cli.output import Record
from vfioctl.cli.pci_records import acs_words, link_words
from vfioctl.errors import visible
from vfioctl.policy.pci_tree import Root, walk
from vfioctl.policy.viability import Viability


def graph(
    roots: Sequence[Root], records: Mapping[str, Record], verdicts: Mapping[int, Viability]
) -> Iterator[str]:
    """The lines of a digraph. ``records``: those of the functions, by address."""
    yield "digraph pci {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, fontname="monospace"];'
    groups: defaultdict[int | None, list[str]] = defaultdict(list)
    for root in roots:
        yield f"  {quoted(root.bus)} [shape=oval];"
        for branch in walk(root.branches):
            groups[branch.function.group].append(branch.function.address)
    for number, addresses in groups.items():
        if number is not None:
            yield f"  subgraph {quoted(f'cluster_{number}')} {{"
            yield f"    label={quoted(_group_words(number, verdicts))};"
        indent = "  " if number is None else "    "
        for address in addresses:
            yield f"{indent}{quoted(address)} [label={quoted(*_words(records[address]))}];"
        if number is not None:
            yield "  }"
    for root in roots:
        yield from (_edge(root.bus, each.function.address) for each in root.branches)
        if root.owner is not None and root.owner in records:
            yield _edge(root.owner, root.bus, "style=bold")
        for branch in walk(root.branches):
            address = branch.function.address
            yield from (_edge(address, each.function.address) for each in branch.below)
            yield from (_edge(address, each.function.address, "style=dashed") for each in branch.virtual)
    yield "}"


def quoted(*lines: str) -> str:
    """A string of the language, of lines one below the other: whatever is in them says nothing to Graphviz."""
    escaped = "\\n".join(visible(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{escaped}"'


def _edge(start: str, end: str, how: str = "") -> str:
    return f"  {quoted(start)} -> {quoted(end)}{how and f' [{how}]'};"


def _group_words(number: int, verdicts: Mapping[int, Viability]) -> str:
    verdict = verdicts.get(number)
    if verdict is None:
        return f"group {number}"
    return f"group {number} ({'viable' if verdict.viable else 'not viable'})"


def _words(record: Record) -> list[str]:
    """Address, ids, and a line for each of driver, ACS and link that there is."""
    acs = acs_words(record["acs"])
    found = [
        f"{record['address']}{' VF' if record['physfn'] else ''}",
        f"{record['class']} {record['vendor']}:{record['device']}",
        record.get("name"),
        record["driver"],
        f"ACS {acs}" if acs not in "?-" else None,
        link_words(record["link"]),
    ]
    return [line for line in found if line]
