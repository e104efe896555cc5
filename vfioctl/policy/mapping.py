"""Whether memory can be mapped, and all that stands in the way: many mappings planned at once (floor 3, pure)."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import KernelRefusal, UsageError, VfioctlError
from vfioctl.policy.iova import Layout, Space, no_entries, no_place, pieces, wrong_size
from vfioctl.policy.refusals import State, memlock_refusal, no_memory
from vfioctl.policy.sizes import format_iova, format_size

#: File systems whose pages the kernel pins for writing; of all others, from 6.5 on, it does not (mm/gup.c,
#: writable_file_mapping_allowed, commit 8ac268436e6d), for it would not notice what a device writes into them.
PINNABLE = frozenset({"tmpfs", "hugetlbfs", "devtmpfs"})

#: So many problems are told one by one; a list may have as many as lines.
TOLD = 100


class Want(NamedTuple):
    """Memory to map, in bytes. ``iova`` None: where it fits; ``chunk``: in mappings of that size; ``source`` is
    ``anonymous``, ``memfd``, ``hugepages-SIZE`` or ``file``, and ``offset`` where in the file it begins; ``line`` is
    where a list says so."""

    size: int
    iova: int | None = None
    prot: str = "rw"
    source: str = "anonymous"
    offset: int = 0
    chunk: int | None = None
    line: int | None = None


class Placed(NamedTuple):
    """A want with its place."""

    want: Want
    iova: int


class File(NamedTuple):
    """The file to map: as :class:`vfioctl.host.memory.FileFacts`."""

    regular: bool
    size: int
    writable: bool
    file_system: str | None
    page_size: int


class Facts(NamedTuple):
    """What a plan goes by besides the space; bytes, None for not known.

    ``memlock_limit`` None is unlimited or, with ``cap_ipc_lock``, without meaning. ``locked`` is what counts against it
    by now: VmLck of the process that maps or, where ``per_user``, what all processes of its user have pinned by
    iommufd. ``pools`` are the huge pages by size: (there are, free, more on demand). ``process`` is who maps;
    ``page_size`` is that of the processor.
    """

    available: int | None = None
    memlock_limit: int | None = None
    locked: int = 0
    cap_ipc_lock: bool = False
    per_user: bool = False
    pools: Mapping[int, tuple[int, int, int]] = {}
    file: File | None = None
    process: int | None = None
    user: str | None = None
    page_size: int = 4096


class Plan(NamedTuple):
    """What would be done and what stands in its way; ``problems`` beyond TOLD are counted in ``untold`` only.

    ``cautions`` are what some kernels refuse and others do not. ``entries`` mappings are made in all, and ``pinned``
    bytes are charged to who has ``locked`` so many by now.
    """

    placed: tuple[Placed, ...]
    problems: tuple[VfioctlError, ...]
    cautions: tuple[str, ...]
    entries: int
    pinned: int
    untold: int = 0
    locked: int = 0

    @property
    def may_pin(self) -> bool:
        """Whether the limit of locked memory seems to allow it."""
        return all(problem.code != "memlock" for problem in self.problems)

    def enforce(self) -> tuple[Placed, ...]:
        """What to map; raises the first problem, saying how many there are. The limit of locked memory is left to the
        kernel, which has the last word."""
        problems = [problem for problem in self.problems if problem.code != "memlock"]
        if not problems:
            return self.placed
        first = problems[0]
        more = len(problems) + self.untold - 1
        if more:
            words = f"{first.message}; {more} more problem{'s' if more > 1 else ''} (--plan shows them)"
            raise _reworded(first, words) from first
        raise first


def plan_all(space: Space, wants: Sequence[Want], facts: Facts) -> Plan:
    """Places for all of ``wants`` beside one another, and every reason why some or all of it cannot be.

    Those that ask for an IOVA get it before places are chosen for the others.
    """
    layout = Layout(space)
    placed: dict[int, Placed] = {}
    problems: list[VfioctlError] = []
    count = 0
    for at in sorted(range(len(wants)), key=lambda at: wants[at].iova is None):
        want = wants[at]
        iova = want.iova
        found = _of_sizes(space, want)
        if not found and iova is None and (iova := layout.find(want.size, _backing(want, facts))) is None:
            found = [no_place(layout, want.size)]
        fits = not found and iova is not None and layout.fits(iova, want.size)
        if fits and iova is not None:
            found = _of_window(layout, iova, want, facts)
            fits = not found
        if not fits or iova is None:
            if not found and iova is not None and count < TOLD:
                found = list(layout.reasons(iova, want.size))
            count += len(found) or 1
            problems += (_at_line(error, want.line) for error in found[: TOLD - len(problems)])
            continue
        layout.take(iova, want.size)
        placed[at] = Placed(want, iova)
    problems.sort(key=lambda error: error.details.get("line", 0))
    entries = sum(pieces(want.size, want.chunk) for want in wants if not _of_sizes(space, want))
    pinned = sum(want.size for want in wants) if space.charge is None else space.charge
    common = [
        *_of_files(wants, facts),
        *_of_pools(wants, facts),
        *_of_limits(space, wants, facts, entries, pinned),
    ]
    return Plan(
        placed=tuple(placed[at] for at in sorted(placed)),
        problems=(*problems, *common),
        cautions=tuple(_cautions(wants, facts)),
        entries=entries,
        pinned=pinned,
        untold=max(0, count - len(problems)),
        locked=facts.locked,
    )


def page_size_of(source: str) -> int | None:
    """The page size in the name of a source of huge pages. UsageError ``source-invalid`` for one that is none."""
    from vfioctl.policy.sizes import parse_size

    if source in ("anonymous", "memfd", "file"):
        return None
    kind, _, size = source.partition("-")
    if kind == "hugepages" and size:
        page = parse_size(size)
        if not page & (page - 1):
            return page
    raise UsageError(
        f"{source!r} is no source of memory",
        code="source-invalid",
        hint="sources are anonymous, memfd, file and hugepages-SIZE, as in hugepages-2M",
    )


def memlock_for(pinned: int, per_user: bool, user: str) -> tuple[str, ...]:
    """What ``user`` would need to pin so many bytes, in sentences: the limit of another user is known only once their
    processes run."""
    kilobytes = -(-pinned // 1024)
    whose = "all processes together" if per_user else "the process that maps"
    return (
        f"{user} needs a limit of locked memory of {pinned} bytes ({kilobytes} KiB) at least, for {whose}, beside what"
        " is locked already",
        f"for a login: the line '{user} - memlock {kilobytes}' in a file of /etc/security/limits.d",
        f"in a systemd unit: 'LimitMEMLOCK={pinned}' (or infinity)",
    )


def _of_sizes(space: Space, want: Want) -> list[VfioctlError]:
    sizes = {"size": want.size} | ({} if want.chunk is None else {"chunk": want.chunk})
    wrong = (wrong_size(space.granule, size, what) for what, size in sizes.items())
    return [error for error in wrong if error is not None]


def _of_window(layout: Layout, iova: int, want: Want, facts: Facts) -> list[VfioctlError]:
    page, window = _backing(want, facts), layout.page_at(iova)
    if layout.space.pages is None or page >= window:
        return []
    return [
        UsageError(
            f"the window at IOVA {format_iova(iova)} has pages of {format_size(window)}, and {want.source} memory has"
            f" pages of {format_size(page)}",
            code="page-too-small",
            hint=f"map huge pages: --source hugepages-{format_size(window)}"
            if window in facts.pools
            else f"this machine has no such memory: make a window with pages of {format_size(page)}",
        )
    ]


def _backing(want: Want, facts: Facts) -> int:
    """The size of the pages that the memory consists of."""
    in_file = facts.file.page_size if want.source == "file" and facts.file is not None else 0
    return max(facts.page_size, page_size_of(want.source) or in_file)


def _of_files(wants: Sequence[Want], facts: Facts) -> Iterator[VfioctlError]:
    """The extent of the file that is wanted at most, so that a chunked list is not told of its every line."""
    parts = [want for want in wants if want.source == "file"]
    if not parts:
        return
    file = facts.file
    if file is None:
        yield UsageError("no file is given to map", code="file-missing", hint="give one: --file PATH")
        return
    if not file.regular:
        yield UsageError("it is not a regular file that is to be mapped", code="file-not-mappable")
        return
    for want in parts:
        if want.offset % file.page_size:
            yield _at_line(
                UsageError(
                    f"offset {want.offset} is not a multiple of the file's page size {format_size(file.page_size)}",
                    code="file-offset-misaligned",
                ),
                want.line,
            )
            break
    longest = max(parts, key=lambda want: want.offset + want.size)
    if longest.offset + longest.size > -(-file.size // file.page_size) * file.page_size:
        yield _at_line(
            UsageError(
                f"the file has {file.size} bytes; {format_size(longest.size)} at offset {longest.offset} are wanted",
                code="file-too-short",
                hint=f"make it longer: truncate -s {longest.offset + longest.size} FILE",
            ),
            longest.line,
        )
    if not file.writable and any("w" in want.prot for want in parts):
        yield UsageError(
            "the file is open for reading only, and devices are to write to it",
            code="file-read-only",
            hint="map it with --prot r",
        )


def _of_pools(wants: Sequence[Want], facts: Facts) -> Iterator[VfioctlError]:
    needed: dict[int, int] = {}
    for want in wants:
        page = page_size_of(want.source)
        if page is not None:
            needed[page] = needed.get(page, 0) + -(-want.size // page)
    for page, count in sorted(needed.items()):
        pool = facts.pools.get(page)
        if pool is None:
            yield _no_such_pages(page, facts)
            continue
        total, left, more = pool
        if count > left + more:
            yield _too_few_pages(page, count, total, left)


def _no_such_pages(page: int, facts: Facts) -> VfioctlError:
    sizes = ", ".join(f"hugepages-{format_size(size)}" for size in sorted(facts.pools))
    hint = f"there are: {sizes}" if sizes else "the kernel was built without huge pages (CONFIG_HUGETLBFS)"
    if page == 1 << 30 and sizes:
        hint += "; pages of 1G take a processor that has them (flag pdpe1gb on x86)"
    return KernelRefusal(
        f"this machine has no huge pages of {format_size(page)}", code="no-such-huge-pages", hint=hint
    )


def _too_few_pages(page: int, count: int, total: int, left: int) -> VfioctlError:
    enough = total + count - left
    hint = f"echo {enough} > /sys/kernel/mm/hugepages/hugepages-{page >> 10}kB/nr_hugepages"
    if page >= 1 << 30:
        hint += (
            "; where memory is too scattered for that, at boot: kernel parameters"
            f" hugepagesz={format_size(page)} hugepages={enough}"
        )
    return KernelRefusal(
        f"{count} huge pages of {format_size(page)} are wanted, and {left} of {total} are free",
        code="no-huge-pages",
        errno=errno.ENOMEM,
        hint=hint,
    )


def _of_limits(
    space: Space, wants: Sequence[Want], facts: Facts, entries: int, pinned: int
) -> Iterator[VfioctlError]:
    if space.entries is not None and entries > space.entries:
        yield no_entries(entries, space.entries)
    limit = None if facts.cap_ipc_lock else facts.memlock_limit
    if limit is not None and facts.locked + pinned > limit:
        yield memlock_refusal(
            State(
                wanted=pinned,
                memlock_limit=limit,
                memlock_locked=facts.locked,
                user=facts.user,
                process=facts.process,
                per_user=facts.per_user,
            )
        )
    fresh = sum(want.size for want in wants if want.source in ("anonymous", "memfd"))
    if facts.available is not None and fresh > facts.available:
        yield no_memory(State(size=fresh))


def _cautions(wants: Sequence[Want], facts: Facts) -> Iterator[str]:
    file = facts.file
    writing = any(want.source == "file" and "w" in want.prot for want in wants)
    if file is None or not writing or file.file_system is None or file.file_system in PINNABLE:
        return
    yield (
        f"the file is on {file.file_system}: from Linux 6.5 on the kernel pins files for writing on tmpfs and hugetlbfs"
        " only (EFAULT); map it with --prot r, or put it there"
    )


def _at_line(error: VfioctlError, line: int | None) -> VfioctlError:
    return error if line is None else _reworded(error, f"line {line}: {error.message}", line=line)


def _reworded(error: VfioctlError, message: str, **details: int) -> VfioctlError:
    return type(error)(
        message,
        hint=error.hint,
        subject=error.subject,
        errno=error.errno,
        code=error.code,
        status=error.status,
        details={**error.details, **details},
    )
