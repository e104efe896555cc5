"""The hierarchy of PCI as a person draws it, with the signs of lspci -t and a line for each function.

-[0000:00]-+-00.0
           +-1c.0-[01]
           |  \\-00.0
           +-1d.0-[02-03]
           |  +-00.0
           |  \\-00.1 VF
           \\-0e.0=[10000:e0]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vfioctl.policy.pci_tree import Branch, Root

#: What is cut off is marked as less -S does.
CUT = ">"
Segment = tuple[str, str]


class Line(NamedTuple):
    """A line of the drawing, and the function in it."""

    text: str
    branch: Branch


def draw(roots: Sequence[Root]) -> Iterator[Line]:
    """A line for each function, in the order of the tree."""
    domains: dict[str, str] = {}
    for root in roots:
        if root.owner is not None:
            domains[root.owner] = f"{domains.get(root.owner, '')}=[{root.bus}]"
    for root in roots:
        head = f"-[{root.bus}]-"
        alone = len(root.branches) == 1
        for index, line in enumerate(_lines([(each, root.bus) for each in root.branches], domains)):
            text = f"--{line.text[2:]}" if alone and not index else line.text
            yield Line((" " * len(head) if index else head) + text, line.branch)


def columns(
    lines: Sequence[Line], headings: Sequence[str], cells: Sequence[Sequence[Segment]]
) -> list[list[Segment]]:
    """The lines with columns behind them, each a list of (text, style); ``headings``: empty, or one more line."""
    rows: list[list[Segment]] = (
        [[("TREE", "bold"), *((name.upper(), "bold") for name in headings)]] if headings else []
    )
    rows += [[(line.text, ""), *row] for line, row in zip(lines, cells, strict=True)]
    widths = [max(len(text) for text, _ in column) for column in zip(*rows, strict=True)]
    widths[-1:] = [-1]  # nothing behind it: not to be filled up
    return [
        [
            (f"{text:{width}} " if width >= 0 else text, style)
            for (text, style), width in zip(row, widths, strict=True)
        ]
        for row in rows
    ]


def fit(row: Sequence[Segment], width: int) -> list[Segment]:
    """The first ``width`` characters of a row."""
    if sum(len(text) for text, _ in row) <= width:
        return list(row)
    found: list[Segment] = []
    room = max(width - len(CUT), 0)
    for text, style in row:
        found.append((text[:room], style))
        room -= len(found[-1][0])
    return [*found, (CUT, "")]


def _lines(branches: Sequence[tuple[Branch, str]], domains: Mapping[str, str]) -> Iterator[Line]:
    """The lines of what lies side by side, each on its bus."""
    for index, (branch, bus) in enumerate(branches):
        is_last = index == len(branches) - 1
        yield Line(("\\-" if is_last else "+-") + _label(branch, bus, domains), branch)
        hanging = [(each, branch.function.bus) for each in branch.virtual]
        hanging += [(each, _bus_behind(branch)) for each in branch.below]
        for line in _lines(hanging, domains):
            yield Line(("   " if is_last else "|  ") + line.text, line.branch)


def _label(branch: Branch, bus: str, domains: Mapping[str, str]) -> str:
    """Slot and function, and what its bus does not tell before them; behind them the buses of a bridge."""
    function = branch.function
    label = function.address
    if function.bus == bus:
        label = label.rpartition(":")[2]
    elif function.bus.partition(":")[0] == bus.partition(":")[0]:
        label = label.partition(":")[2]
    if branch.is_bridge:
        numbers = "?" if branch.buses is None else "-".join(f"{n:02x}" for n in dict.fromkeys(branch.buses))
        label += f"-[{numbers}]"
    return label + domains.get(function.address, "") + (" VF" if function.physfn else "")


def _bus_behind(branch: Branch) -> str:
    return f"{branch.function.bus.partition(':')[0]}:{branch.buses[0]:02x}" if branch.buses else ""
