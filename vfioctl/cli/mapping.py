"""What the commands that map memory have in common: what is asked for, progress, a plan in words."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vfioctl.cli import records
from vfioctl.cli.output import text
from vfioctl.errors import UsageError, VfioctlError
from vfioctl.policy.sizes import format_iova, format_size, parse_iova, parse_size

if TYPE_CHECKING:
    from vfioctl.policy.mapping import Want

#: Below this many bytes a mapping takes no time that a person would notice.
LONG = 256 << 20
#: Bytes; more than of any list that a keeper takes (vfioctl.host.channel.LONGEST).
MOST_TEXT = 64 << 20

DEFAULT_SIZE = 1 << 20


class Asked(NamedTuple):
    """What the options of ``map`` say; None: not given."""

    size: str | None
    iova: str | None
    chunk: str | None
    prot: str
    source: str | None
    file: str | None
    file_offset: str | None
    fill: str | None
    listed: str | None

    def wants(self) -> list[Want]:
        """The memory to map. Raises UsageError."""
        from vfioctl.policy.mapping import Want, page_size_of

        source = self.source or ("file" if self.file is not None else "anonymous")
        page_size_of(source)
        if self.listed is not None:
            from vfioctl.policy.mapping_list import parse

            alone = {"--size": self.size, "--iova": self.iova, "--chunk": self.chunk, "--fill": self.fill}
            for option, value in (alone | {"--file-offset": self.file_offset}).items():
                if value is not None:
                    raise UsageError(f"{option} and --list exclude each other")
            return parse(read_text(self.listed), self.prot, source)
        if (self.file is not None) != (source == "file"):
            raise UsageError("--file PATH and --source file belong together")
        if self.file_offset is not None and self.file is None:
            raise UsageError("--file-offset is for --file")
        offset = parse_offset(self.file_offset)
        return [
            Want(
                size=parse_size(self.size) if self.size is not None else self._size_of_file(offset),
                iova=None if self.iova is None else parse_iova(self.iova),
                prot=self.prot,
                source=source,
                offset=offset,
                chunk=None if self.chunk is None else parse_size(self.chunk),
            )
        ]

    def _size_of_file(self, offset: int) -> int:
        """Without --size: what the file or the filling has, in whole pages."""
        path = self.file or (self.fill if self.fill != "-" else None)
        if path is None:
            return DEFAULT_SIZE
        with _named(path):
            size = os.stat(path).st_size - offset
        return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE

    @contextlib.contextmanager
    def opened_file(self) -> Iterator[tuple[int, ...]]:
        """The descriptor of the file to map, for the keeper; none without one."""
        if self.file is None:
            yield ()
            return
        with _named(self.file):
            # A named pipe would wait for a writer, before it is refused.
            flags = (os.O_RDWR if "w" in self.prot else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(self.file, flags)
        try:
            yield (fd,)
        finally:
            os.close(fd)


def parse_offset(value: str | None) -> int:
    """An offset: a size, or 0."""
    return 0 if value is None or value in ("0", "0x0") else parse_size(value)


def read_text(path: str) -> str:
    """A text that is given as a file's name, or as - for standard input. Raises VfioctlError."""
    with _named(path), opened_for_reading(path) as file:
        data = bytes(file.read(MOST_TEXT + 1))
        if len(data) > MOST_TEXT:  # it may have no end at all
            raise UsageError(f"{path} has more than {format_size(MOST_TEXT)}", subject=path, code="file")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not text", subject=path) from error


@contextlib.contextmanager
def opened_for_reading(path: str) -> Iterator[Any]:
    """A binary file, or standard input for -. Raises VfioctlError."""
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed", hint="give a file", code="file")
        yield sys.stdin.buffer
        return
    with _named(path):
        file = open(path, "rb")  # noqa: SIM115 - errors of the block are not the file's
    with file:
        yield file


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors of a file that the user named."""
    try:
        yield
    except OSError as error:
        raise file_error(path, error) from error


def file_error(path: str, error: OSError) -> VfioctlError:
    """What an operation on a file that the user named has failed with."""
    return UsageError(f"{path}: {error.strerror}", subject=path, errno=error.errno, code="file")


@contextlib.contextmanager
def progress_bar(size: int, *stages: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """Bars on stderr for the stages of a mapping of ``size`` bytes, where that takes long and a person watches."""
    if size < LONG or not sys.stderr.isatty():
        yield None
        return
    from vfioctl.cli import terminal

    with terminal.progress(stages, size) as update:
        yield lambda stage, done, total: update(stage, done)


def plan_record(found: dict[str, Any], user: str | None) -> dict[str, Any]:
    """The public record of a plan, from the keeper's answer; ``user``: who else would need the limit of it."""
    from vfioctl.policy.iova import page_sizes
    from vfioctl.policy.mapping import memlock_for

    keys = ("iova", "size", "prot", "source", "chunk", "line")
    per_user = found["accounting"] == "user"
    problems = found["problems"]
    if user is not None:
        problems = [each for each in problems if each["code"] != "memlock"]
    return {
        "possible": not problems,
        "mappings": [dict(zip(keys, each, strict=True)) for each in found["mappings"]],
        "problems": problems,
        "problems_untold": found["untold"],
        "cautions": found["cautions"],
        "entries": found["entries"],
        "memlock": {
            "needed": found["pinned"],
            "locked": found["locked"],
            "limit": found["memlock"] if user is None else None,
            "accounting": found["accounting"],
            "user": user,
            "advice": [] if user is None else list(memlock_for(found["pinned"], per_user, user)),
        },
        "page_sizes": list(page_sizes(found["page_sizes"])),
        "iova_ranges": records.ranges(found["iova_ranges"]),
        "reserved_regions": [
            dict(zip(("start", "end", "type"), each, strict=True)) for each in found["reserved_regions"]
        ],
    }


def plan_lines(record: dict[str, Any]) -> list[str]:
    """A plan for people."""
    memlock = record["memlock"]
    lines = [f"possible={text(record['possible'])}"]
    lines += [
        f"mapping={format_iova(m['iova'])} size={m['size']} prot={m['prot']} source={m['source']}"
        + (f" chunk={m['chunk']}" if m["chunk"] else "")
        + (f" line={m['line']}" if m["line"] else "")
        for m in record["mappings"]
    ]
    for problem in record["problems"]:
        lines.append(f"problem={problem['code']}: {problem['message']}")
        lines += [f"  cure: {problem['hint']}"] if problem["hint"] else []
    if record["problems_untold"]:
        lines.append(f"problems_untold={record['problems_untold']}")
    lines += [f"caution={caution}" for caution in record["cautions"]]
    lines += [f"entries.{key}={text(record['entries'][key])}" for key in ("needed", "left")]
    lines += [f"memlock.{key}={text(memlock[key])}" for key in ("needed", "locked", "limit", "accounting")]
    return lines + [f"memlock.advice={advice}" for advice in memlock["advice"]]
