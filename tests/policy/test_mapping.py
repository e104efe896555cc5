"""Many mappings planned at once, and all that stands in the way."""

from __future__ import annotations

import errno
import time

import pytest

from vfioctl.errors import KernelRefusal, UsageError, VfioctlError
from vfioctl.policy.iova import Space
from vfioctl.policy.mapping import (
    TOLD,
    Facts,
    File,
    Placed,
    Plan,
    Want,
    memlock_for,
    page_size_of,
    plan_all,
)

MIB = 1 << 20
GIB = 1 << 30
VTD = Space(
    page_sizes=0x40201000,
    ranges=((0, 0xFEDFFFFF), (0xFEF00000, 0x7FFFFFFFFF)),
    reserved=((0xFEE00000, 0xFEEFFFFF, "msi"),),
    entries=65535,
)


def codes(plan: Plan) -> list[str]:
    return [problem.code for problem in plan.problems]


def places(plan: Plan) -> list[int]:
    return [placed.iova for placed in plan.enforce()]


def test_one() -> None:
    want = Want(MIB)
    plan = plan_all(VTD, [want], Facts())
    assert plan == ((Placed(want, 0),), (), (), 1, MIB, 0, 0)


def test_those_without_a_place_make_room_for_those_with_one() -> None:
    wants = [Want(MIB), Want(MIB, iova=0), Want(4096), Want(4096, iova=MIB)]
    assert places(plan_all(VTD, wants, Facts())) == [0x101000, 0, 0x201000, MIB]


def test_lines_against_one_another_and_against_what_is_there() -> None:
    space = VTD._replace(mappings=((0x100000, 0x100000),))
    wants = [Want(8192, 0, line=1), Want(4096, 4096, line=3), Want(4096, 0x1FF000, line=4)]
    plan = plan_all(space, wants, Facts())
    assert codes(plan) == ["mapping-overlap"] * 2
    assert [problem.details for problem in plan.problems] == [{"line": 3}, {"line": 4}]
    assert plan.problems[0].message == "line 3: 4K at IOVA 0x1000-0x1fff overlaps the mapping 0x0-0x1fff"
    assert "0x100000-0x1fffff" in plan.problems[1].message
    with pytest.raises(UsageError, match=r"line 3: .*; 1 more problem"):
        plan.enforce()


def test_all_reasons_and_not_only_the_first() -> None:
    plan = plan_all(VTD._replace(mappings=((0xFEDFF000, 4096),)), [Want(3 * 4096, 0xFEDFF800)], Facts())
    assert codes(plan) == ["iova-misaligned", "iova-reserved", "iova-out-of-range", "mapping-overlap"]


def test_sizes_of_chunks_too() -> None:
    assert codes(plan_all(VTD, [Want(5000, chunk=100)], Facts())) == ["size-misaligned"] * 2
    assert codes(plan_all(VTD, [Want(0, 0)], Facts())) == ["size-invalid"]


def test_entries_are_counted_over_all() -> None:
    wants = [Want(8192, chunk=4096), Want(4096)]
    assert plan_all(VTD._replace(entries=3), wants, Facts()).entries == 3
    plan = plan_all(VTD._replace(entries=2), wants, Facts())
    assert codes(plan) == ["no-entries-left"]
    assert plan_all(VTD._replace(entries=None), wants, Facts()).problems == ()


def test_windows_with_pages_of_their_own() -> None:
    """sPAPR: a window of 64K pages and one of 16M."""
    windows = Space(
        ranges=((0, 0x3FFFFFFF), (1 << 59, (1 << 59) + 0x3FFFFFFFFF)),
        pages=(0x10000, 16 * MIB),
        page_sizes=0x1010000,
    )
    facts = Facts(page_size=0x10000, pools={16 * MIB: (200, 200, 0)})
    huge = Want(16 * MIB, source="hugepages-16M")
    assert places(plan_all(windows, [Want(0x10000), huge], facts)) == [0, 16 * MIB]
    plan = plan_all(windows, [Want(0x10000, 1 << 59)], facts)
    assert codes(plan) == ["size-misaligned"]
    assert "16M" in plan.problems[0].message
    assert places(plan_all(windows, [huge._replace(size=1 << 31)], facts)) == [1 << 59]
    plan = plan_all(windows, [Want(16 * MIB, 1 << 59)], facts)
    assert codes(plan) == ["page-too-small"]
    assert "--source hugepages-16M" in (plan.problems[0].hint or "")
    (problem,) = plan_all(windows, [Want(16 * MIB, 1 << 59)], facts._replace(pools={})).problems
    assert "make a window with pages of 64K" in (problem.hint or "")
    assert plan.problems[0].hint == "map huge pages: --source hugepages-16M"
    assert codes(plan_all(windows, [Want(1 << 31)], facts)) == ["iova-out-of-range"]
    taken = windows._replace(mappings=((0, 0x10000),))
    assert codes(plan_all(taken, [Want(0x10000, 0)], facts)) == ["mapping-overlap"]


def test_iommufd_has_an_alignment_and_no_limit_of_entries() -> None:
    ioas = Space(page_sizes=0x1000, ranges=((0, 2**64 - 1),))
    assert places(plan_all(ioas, [Want(4096, chunk=4096)] * 3, Facts())) == [0, 0x1000, 0x2000]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (Facts(memlock_limit=8 * MIB, locked=7 * MIB), "memlock"),
        (Facts(memlock_limit=8 * MIB, locked=6 * MIB), None),
        (Facts(memlock_limit=8 * MIB, locked=7 * MIB, cap_ipc_lock=True), None),
        (Facts(), None),
        (Facts(available=MIB), "no-memory"),
        (Facts(available=2 * MIB), None),
    ],
)
def test_limits(facts: Facts, problem: str | None) -> None:
    plan = plan_all(VTD, [Want(MIB), Want(MIB)], facts)
    assert codes(plan) == ([] if problem is None else [problem])


def test_whose_limit_it_is() -> None:
    facts = Facts(memlock_limit=8 * MIB, locked=7 * MIB, process=4711, user="alice")
    (problem,) = plan_all(VTD, [Want(2 * MIB)], facts).problems
    assert problem.message == (
        "2M cannot be pinned: process 4711 may not lock that much memory: the limit is 8M, 7M are locked,"
        " 9M are needed in all"
    )
    assert problem.hint is not None
    assert "'prlimit --pid 4711 --memlock=9437184'" in problem.hint
    assert "'alice - memlock 9216'" in problem.hint
    (problem,) = plan_all(VTD, [Want(2 * MIB)], facts._replace(per_user=True)).problems
    assert "the processes of this user together may not" in problem.message


def test_what_another_user_would_need() -> None:
    need, login, unit = memlock_for(MIB, False, "alice")
    assert "1048576 bytes (1024 KiB)" in need and "the process that maps" in need
    assert "'alice - memlock 1024'" in login
    assert "LimitMEMLOCK=1048576" in unit
    assert "all processes together" in memlock_for(MIB, True, "alice")[0]


def pools(**facts: int) -> Facts:
    return Facts(pools={2 * MIB: (facts.get("total", 0), facts.get("left", 0), facts.get("more", 0))})


def test_huge_pages() -> None:
    wants = [Want(2 * MIB, source="hugepages-2M"), Want(3 * MIB, source="hugepages-2M")]
    assert codes(plan_all(VTD, wants, pools(total=3, left=3))) == []
    assert codes(plan_all(VTD, wants, pools(total=3, left=1, more=2))) == []
    (problem,) = plan_all(VTD, wants, pools(total=4, left=1)).problems
    assert (problem.code, problem.errno) == ("no-huge-pages", errno.ENOMEM)
    assert problem.message == "3 huge pages of 2M are wanted, and 1 of 4 are free"
    assert problem.hint == "echo 6 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def test_huge_pages_that_the_machine_does_not_have() -> None:
    wants = [Want(GIB, source="hugepages-1G")]
    (problem,) = plan_all(VTD, wants, pools(total=4)).problems
    assert problem.code == "no-such-huge-pages"
    assert problem.hint is not None and "hugepages-2M" in problem.hint and "pdpe1gb" in problem.hint
    (problem,) = plan_all(VTD, wants, Facts()).problems
    assert problem.hint is not None and "CONFIG_HUGETLBFS" in problem.hint
    (problem,) = plan_all(VTD, wants, Facts(pools={GIB: (0, 0, 0)})).problems
    assert problem.hint is not None
    assert problem.hint.startswith("echo 1 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
    assert "hugepagesz=1G hugepages=1" in problem.hint


FILE = File(regular=True, size=2 * MIB, writable=True, file_system="tmpfs", page_size=4096)


@pytest.mark.parametrize(
    ("file", "want", "problem"),
    [
        (FILE, Want(MIB, source="file"), None),
        (FILE, Want(MIB, source="file", offset=MIB), None),
        (FILE, Want(MIB, source="file", offset=MIB + 4096), "file-too-short"),
        (FILE, Want(MIB, source="file", offset=100), "file-offset-misaligned"),
        (FILE._replace(page_size=2 * MIB), Want(4096, source="file", offset=4096), "file-offset-misaligned"),
        (FILE._replace(regular=False), Want(MIB, source="file"), "file-not-mappable"),
        (FILE._replace(writable=False), Want(MIB, source="file"), "file-read-only"),
        (FILE._replace(writable=False), Want(MIB, source="file", prot="r"), None),
        (None, Want(MIB, source="file"), "file-missing"),
    ],
)
def test_files(file: File | None, want: Want, problem: str | None) -> None:
    plan = plan_all(VTD, [want], Facts(file=file))
    assert codes(plan) == ([] if problem is None else [problem])
    assert plan.cautions == ()


def test_file_systems_that_newer_kernels_do_not_pin_for_writing() -> None:
    facts = Facts(file=FILE._replace(file_system="ext4"))
    (caution,) = plan_all(VTD, [Want(MIB, source="file")], facts).cautions
    assert "ext4" in caution and "tmpfs" in caution
    assert plan_all(VTD, [Want(MIB, source="file", prot="r")], facts).cautions == ()
    assert plan_all(VTD, [Want(MIB)], facts).cautions == ()


@pytest.mark.parametrize(
    ("source", "page"),
    [("anonymous", None), ("memfd", None), ("file", None), ("hugepages-2M", 2 * MIB), ("hugepages-1G", GIB)],
)
def test_sources(source: str, page: int | None) -> None:
    assert page_size_of(source) == page


@pytest.mark.parametrize(
    "source", ["", "hugepages", "hugepages-", "hugepages-3M", "hugepages-x", "Memfd", "a-2M"]
)
def test_what_is_no_source(source: str) -> None:
    with pytest.raises(UsageError):
        page_size_of(source)


def test_long_lists_are_planned_in_time_linear_in_them() -> None:
    wants = [Want(4096, 0x10000 + 8192 * n) for n in range(20000)] + [Want(4096)] * 20000
    began = time.process_time()
    plan = plan_all(VTD, wants, Facts())
    assert time.process_time() - began < 20
    assert len(set(places(plan))) == 40000


def test_a_list_of_faults_is_told_in_part() -> None:
    plan = plan_all(VTD, [Want(4096, 0x800, line=n) for n in range(1, 1000)], Facts())
    assert len(plan.problems) == TOLD
    assert plan.untold == 899
    with pytest.raises(VfioctlError, match="998 more problems"):
        plan.enforce()


def test_nothing_but_the_kernel_s_refusals_has_an_errno() -> None:
    (problem,) = plan_all(VTD._replace(entries=0), [Want(4096)], Facts()).problems
    assert isinstance(problem, KernelRefusal) and problem.errno == errno.ENOSPC
