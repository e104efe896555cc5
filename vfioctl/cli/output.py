"""How answers are printed: table, plain, json, yaml. Documents and rows come from vfioctl.cli.records."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import click

from vfioctl.cli.session import Session
from vfioctl.errors import UsageError, visible

Record = Mapping[str, Any]
#: Column name -> the value of that column in a record.
Columns = Mapping[str, Callable[[Record], object]]
#: Columns whose yes and no are good and bad.
_VERDICTS = frozenset({"viable", "usable", "live"})
F = TypeVar("F", bound=Callable[..., Any])


class Output(NamedTuple):
    """What was asked of the output. ``chosen``: the columns are the user's choice, not the command's default."""

    format: str
    noheadings: bool = False
    columns: tuple[str, ...] = ()
    chosen: bool = False


def output_options(
    columns: Columns | None = None, default: Sequence[str] = (), formats: Sequence[str] = ()
) -> Callable[[F], Any]:
    """Adds --format, -J and, for a command with ``columns``, -n and -o; the command gets an :class:`Output` for them
    as ``output``. ``formats``: further ones, which the command prints itself."""

    def decorate(function: F) -> Any:
        @functools.wraps(function)
        def command(
            *args: Any,
            format_: str | None,
            as_json: bool,
            noheadings: bool = False,
            columns: tuple[str, ...] = (),
            **values: Any,
        ) -> Any:
            chosen = "json" if as_json else format_ or ("table" if sys.stdout.isatty() else "plain")
            output = Output(chosen, noheadings, columns or tuple(default), bool(columns))
            return function(*args, output=output, **values)

        wrapped: Any = command
        if columns is not None:
            listed = ", ".join(columns)
            wrapped = click.option(
                "-o",
                "--columns",
                metavar="A,B",
                callback=lambda ctx, param, value: _columns(value, columns),
                help=f"Columns of table and plain: {listed}.  [default: {', '.join(default)}]",
            )(wrapped)
            wrapped = click.option("-n", "--noheadings", is_flag=True, help="Leave the headings out.")(
                wrapped
            )
        wrapped = click.option(
            "-J", "--json", "as_json", is_flag=True, cls=_ShortFlag, help="The same as --format json."
        )(wrapped)
        return click.option(
            "--format",
            "format_",
            type=click.Choice(["table", "plain", "json", "yaml", *formats]),
            help="Default: table on a terminal, else plain.",
        )(wrapped)

    return decorate


class _ShortFlag(click.Option):
    """A flag whose short form is found at once. click takes ``-J`` for a long option first, and searches for similar
    names for an error message that nobody sees (importing difflib: 3 ms) before it looks at the short ones."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        short, long = getattr(parser, "_short_opt", {}), getattr(parser, "_long_opt", {})
        long.update((name, short[name]) for name in self.opts if name in short)


def _columns(value: str | None, columns: Columns) -> tuple[str, ...]:
    if value is None:
        return ()
    chosen = tuple(name.strip().lower() for name in value.split(","))
    for name in chosen:
        if name not in columns:
            raise UsageError(f"-o: there is no column {name!r}", hint=f"columns: {', '.join(columns)}")
    return chosen


def emit(
    session: Session,
    output: Output,
    document: Record,
    rows: Iterable[Record] = (),
    columns: Columns | None = None,
) -> None:
    """Prints ``document`` as json or yaml, or ``rows`` by the chosen columns as table or plain."""
    if output.format == "json":
        emit_json(document)
    elif output.format == "yaml":
        emit_yaml(document)
    else:
        columns = columns or {}
        table = [[columns[name](row) for name in output.columns] for row in rows]
        if output.format == "plain":
            emit_plain(output, table)
        else:
            emit_table(session, output, table)


class Stream:
    """Records that come one after another, each written at once: a JSON object or a row a line, a YAML document each.
    ``widths``: of the columns of table, in characters, where they are known before."""

    def __init__(self, output: Output, columns: Columns, widths: Mapping[str, int]) -> None:
        self.output = output
        self.columns = columns
        self.widths = widths

    def write(self, record: Record) -> None:
        """Raises BrokenPipeError when nobody reads any more."""
        output = self.output
        row = [self.columns[name](record) for name in output.columns]
        if output.format == "json":
            emit_json(record, one_line=True)
        elif output.format == "yaml":
            sys.stdout.write("---\n")
            emit_yaml(record)
        elif output.format == "plain":
            emit_plain(output, [row])
        else:
            if not output.noheadings:
                self._write_line([name.upper() for name in output.columns])
            self._write_line(row)
        sys.stdout.flush()
        self.output = output._replace(noheadings=True)

    def _write_line(self, cells: Sequence[object]) -> None:
        padded = zip(self.output.columns, cells, strict=True)
        line = "  ".join(visible(text(cell)).ljust(self.widths.get(name, 0)) for name, cell in padded)
        sys.stdout.write(line.rstrip() + "\n")


def emit_json(document: Record, *, one_line: bool = False) -> None:
    """One line when a program reads it, indented when a person does."""
    import json

    indent = 2 if sys.stdout.isatty() and not one_line else None
    sys.stdout.write(json.dumps(document, indent=indent) + "\n")


def emit_yaml(document: Record) -> None:
    """YAML whose strings are strings to every reader: 11e8 without quotes is a number to YAML 1.2, and an id to us."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def represent(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if value[:1] in "0123456789.+-" else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, represent)
    sys.stdout.write(yaml.dump(_plain(document), Dumper=Dumper, sort_keys=False, allow_unicode=False))


def emit_plain(output: Output, table: Sequence[Sequence[object]]) -> None:
    """One record a line, fields separated by one space; a field's own spaces and controls as backslash escapes."""
    lines = [] if output.noheadings or not table else [" ".join(name.upper() for name in output.columns)]
    lines += [" ".join(field(cell) for cell in row) for row in table]
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")


def emit_table(session: Session, output: Output, table: Sequence[Sequence[object]]) -> None:
    """For people; its form may change from release to release."""
    from vfioctl.cli import terminal

    rows = [
        [(visible(text(cell)), style_of(name, cell)) for name, cell in zip(output.columns, row, strict=True)]
        for row in table
    ]
    terminal.print_table([] if output.noheadings else output.columns, rows, session.color)


def text(cell: object) -> str:
    """A value as words: None is "-", booleans are yes and no, lists are joined by commas."""
    if cell is None or cell == "":
        return "-"
    if cell is True:
        return "yes"
    if cell is False:
        return "no"
    if isinstance(cell, (list, tuple)):
        return ",".join(text(item) for item in cell) or "-"
    return str(cell)


def field(cell: object) -> str:
    """A value as one word: spaces and controls in it are backslash escapes."""
    return visible(text(cell).replace("\\", "\\\\")).replace(" ", "\\x20")


def style_of(name: str, cell: object) -> str:
    """Verdicts are green and red; that something was not changed is neither."""
    return {True: "green", False: "red"}[cell] if isinstance(cell, bool) and name in _VERDICTS else ""


def _plain(value: Any) -> Any:
    """Tuples as lists, for the safe YAML dumper knows no tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return cast(object, value)
