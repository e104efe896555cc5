"""What only a person at a terminal sees: tables and bars. The home of rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def print_table(headings: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], color: str) -> None:
    """Prints rows of (text, style) under ``headings`` (none: without); ``color`` is auto, always or never."""
    header_style = "" if _is_plain(color) else "bold"
    drawn = Table(box=None, show_header=bool(headings), pad_edge=False, header_style=header_style)
    for name in headings or [""] * max(map(len, rows), default=0):
        drawn.add_column(Text(name.upper()), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text, style=style) for text, style in row))
    _console(color).print(drawn)


def print_lines(lines: Iterable[Sequence[tuple[str, str]]], color: str) -> None:
    """Prints lines of (text, style), as long as they are; ``color`` as above."""
    console = _console(color)
    for line in lines:
        styled = ((text, "" if _is_plain(color) else style) for text, style in line)
        console.print(Text.assemble(*styled), soft_wrap=True)


def _console(color: str) -> Console:
    return Console(
        force_terminal=True if color == "always" else None,
        no_color=_is_plain(color),
        highlight=False,
        soft_wrap=not sys.stdout.isatty(),
    )


def _is_plain(color: str) -> bool:
    return color == "never" or (color == "auto" and "NO_COLOR" in os.environ)


@contextmanager
def progress(stages: Sequence[str], size: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on stderr for each stage of ``size`` bytes; what it gives is called with a stage and the bytes done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {stage: bar.add_task(stage, total=size) for stage in stages}
        yield lambda stage, done: bar.update(tasks[stage], completed=done)
