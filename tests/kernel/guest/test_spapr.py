"""Containers of POWER by vfioctl's commands: windows, memory that is registered, real DMA, and EEH."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.edu.edu import Edu
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of
from vfioctl.host.machine import Machine
from vfioctl.ops.keeper import named

Roles = Mapping[str, str]
PSERIES = pytest.mark.machine("pseries")
POWERNV = pytest.mark.machine("powernv")
PAGE = 65536  # of the largest kernels
HUGE = 2 << 20
GIB = 1 << 30
SECOND = 1 << 59
NAME = "work"


@pytest.fixture(scope="module")
def bound(vfioctl: Vfioctl, roles: Roles) -> Iterator[Roles]:
    """The roles, both devices bound."""
    assert vfioctl("bind", roles["edu"], roles["nic_a"]).status == 0
    yield roles
    assert vfioctl("unbind", roles["edu"], roles["nic_a"]).status == 0


@pytest.fixture(autouse=True)
def closed(vfioctl: Vfioctl) -> Iterator[None]:
    """No container is left open."""
    yield
    assert vfioctl("container", "close", "--all").status == 0


def done(vfioctl: Vfioctl, *arguments: object) -> Any:
    """What a command that has to succeed prints."""
    result = vfioctl(*arguments)
    assert result.status == 0, result
    return result.json if "-J" in arguments else result.stdout


def refusal(vfioctl: Vfioctl, *arguments: object) -> tuple[int, str]:
    """Status and code of a command that has to fail."""
    result = vfioctl(*arguments, "-J")
    return result.status, result.json_error["code"]


@contextmanager
def huge_pages(count: int) -> Iterator[tuple[str, int]]:
    """The name of a source of huge pages of 2M or more, and their size; so many are in reserve."""
    top = Path("/sys/kernel/mm/hugepages")
    sizes = (int(pool.name.removeprefix("hugepages-").removesuffix("kB")) for pool in top.iterdir())
    size = min(size << 10 for size in sizes if size << 10 >= HUGE)
    pool = top / f"hugepages-{size >> 10}kB/nr_hugepages"
    Path("/proc/sys/vm/compact_memory").write_text("1")  # other tests have left it scattered
    pool.write_text(str(count))
    assert int(pool.read_text()) == count
    yield f"hugepages-{size >> 20}M", size
    pool.write_text("0")


def shown(vfioctl: Vfioctl) -> Any:
    return done(vfioctl, "container", "show", NAME, "-J")


def copies(device: str, source: int, destination: int) -> bool:
    """Whether the device copies 4096 bytes from one IOVA to another."""
    with named.connected(Machine(), NAME) as client:
        pattern = os.urandom(4096)
        client.write(source, pattern)
        client.write(destination, bytes(4096))
        fd = client.open_device(device)
        try:
            Edu(fd).dma_copy(source, destination, 4096)
        finally:
            os.close(fd)
        return client.read(destination, 4096) == pattern


@PSERIES
def test_v2(vfioctl: Vfioctl, bound: Roles) -> None:
    edu = bound["edu"]
    assert done(vfioctl, "container", "open", NAME, edu, "-J")["containers"][0]["backend"] == "spapr-v2"
    details = shown(vfioctl)["details"]
    assert details["windows"] == [{"start": 0, "end": GIB - 1, "page_size": 4096, "levels": 1}]
    assert (details["max_windows"], details["max_levels"]) == (2, 1)
    assert details["window_page_sizes"] == [4096, 65536, 2 << 20, 16 << 20]
    before = shown(vfioctl)["locked"]
    done(vfioctl, "map", "-c", NAME, "--size", PAGE * 2, "--iova", "0x100000")
    table = GIB // 4096 * 8
    assert shown(vfioctl)["locked"] == before + 2 * PAGE + table
    assert refusal(vfioctl, "map", "-c", NAME, "--size", PAGE, "--iova", "0x110000") == (2, "mapping-overlap")
    assert refusal(vfioctl, "map", "-c", NAME, "--size", PAGE, "--iova", hex(GIB)) == (2, "iova-out-of-range")
    assert copies(edu, 0x100000, 0x100000 + PAGE)
    done(vfioctl, "unmap", "-c", NAME, "--all")
    assert shown(vfioctl)["locked"] == before + table
    assert refusal(vfioctl, "eeh", "state", "-c", NAME) == (7, "no-eeh")


@PSERIES
def test_windows(vfioctl: Vfioctl, bound: Roles) -> None:
    done(vfioctl, "container", "open", NAME, bound["edu"])
    wanted = ("window", "create", "-c", NAME, "--size", "1G", "--page-size")
    window = done(vfioctl, *wanted, "2M", "-J")["window"]
    assert window == {"start": SECOND, "end": SECOND + GIB - 1, "page_size": HUGE, "levels": 1}
    assert refusal(vfioctl, *wanted, "2M") == (7, "no-window-left")
    assert refusal(vfioctl, *wanted, "8K") == (2, "window-invalid")
    there = ("map", "-c", NAME, "--iova", hex(SECOND + HUGE))
    assert refusal(vfioctl, *there, "--size", HUGE) == (2, "page-too-small")
    with huge_pages(2) as (source, page):
        done(vfioctl, *there, "--size", page, "--source", source)
        assert refusal(vfioctl, "window", "remove", hex(SECOND), "-c", NAME) == (6, "object-busy")
        done(vfioctl, "unmap", "-c", NAME, "--all")
    done(vfioctl, "window", "remove", hex(SECOND), "-c", NAME)
    assert refusal(vfioctl, "window", "remove", hex(SECOND), "-c", NAME) == (3, "window-invalid")
    lines = done(vfioctl, "container", "show", NAME).splitlines()
    assert "windows=start=0x0 end=0x3fffffff page_size=4096 levels=1" in lines
    done(vfioctl, "container", "close", NAME)
    record = done(vfioctl, "iommu-info", bound["edu"], "--attach", "-J")
    assert (record["backend"], record["details"]["max_windows"]) == ("spapr-v2", 2)


@PSERIES
def test_groups_of_a_partition_are_split(vfioctl: Vfioctl, bound: Roles) -> None:
    both = [bound["edu"], bound["nic_a"]]
    assert refusal(vfioctl, "container", "open", NAME, *both)[1] == "cannot-share"
    found = done(vfioctl, "container", "open", NAME, *both, "--split", "-J")["containers"]
    assert [record["groups"] for record in found] == [[number] for number in sorted(map(group_of, both))]
    done(vfioctl, "map", "-c", found[1]["name"], "--size", PAGE)


@PSERIES
def test_v1(vfioctl: Vfioctl, bound: Roles) -> None:
    edu = bound["edu"]
    done(vfioctl, "container", "open", NAME, edu, "--backend", "spapr-v1")
    before = shown(vfioctl)["locked"]
    assert shown(vfioctl)["details"]["max_windows"] is None
    done(vfioctl, "map", "-c", NAME, "--size", PAGE, "--iova", "0x100000")
    done(vfioctl, "map", "-c", NAME, "--size", PAGE, "--iova", "0x200000")
    assert shown(vfioctl)["locked"] >= before + GIB
    assert copies(edu, 0x100000, 0x200000)
    assert refusal(vfioctl, "container", "add", NAME, bound["nic_a"])[1] == "cannot-share"
    assert refusal(vfioctl, "window", "create", "-c", NAME, "--page-size", "64K", "--size", "1G") == (
        2,
        "not-supported",
    )
    done(vfioctl, "unmap", "-c", NAME, "--all")
    assert shown(vfioctl)["locked"] < before + GIB


@PSERIES
@pytest.mark.parametrize("backend", ["spapr-v1", "spapr-v2"])
def test_the_limit_of_locked_memory(vfioctl: Vfioctl, bound: Roles, backend: str) -> None:
    done(vfioctl, "permit", bound["edu"], "--user", "nobody")
    try:
        result = vfioctl(
            *("map", bound["edu"], "--size", "1M", "--backend", backend, "-J"),
            user=Vfioctl.unprivileged,
            memlock=PAGE,
        )
        assert (result.status, result.json_error["code"]) == (7, "memlock"), result
    finally:
        done(vfioctl, "revoke", bound["edu"])


@POWERNV
def test_what_the_kernel_drops_when_a_group_leaves_is_mapped_again(vfioctl: Vfioctl, bound: Roles) -> None:
    edu, nic = bound["edu"], bound["nic_a"]
    done(vfioctl, "container", "open", NAME, edu, nic)
    done(vfioctl, "map", "-c", NAME, "--size", 2 * PAGE, "--iova", "0x100000")
    assert copies(edu, 0x100000, 0x100000 + PAGE)
    done(vfioctl, "container", "remove", NAME, nic)
    assert copies(edu, 0x100000, 0x100000 + PAGE)


@POWERNV
def test_a_window_of_several_levels_in_the_place_of_the_default_one(vfioctl: Vfioctl, bound: Roles) -> None:
    done(vfioctl, "container", "open", NAME, bound["edu"], bound["nic_a"])
    details = shown(vfioctl)["details"]
    assert (details["max_windows"], details["max_levels"]) == (2, 5)
    done(vfioctl, "window", "remove", "0", "-c", NAME)
    size = ("--page-size", "4K", "--size", "2G", "--levels", "2")
    window = done(vfioctl, "window", "create", "-c", NAME, *size, "-J")["window"]
    assert (window["start"], window["levels"]) == (0, 2)
    done(vfioctl, "map", "-c", NAME, "--size", 2 * PAGE, "--iova", "0x100000")
    assert copies(bound["edu"], 0x100000, 0x100000 + PAGE)


@POWERNV
@pytest.mark.deadline(600)
def test_eeh(vfioctl: Vfioctl, bound: Roles) -> None:
    done(vfioctl, "container", "open", NAME, bound["edu"])
    done(vfioctl, "eeh", "enable", "-c", NAME)
    assert done(vfioctl, "eeh", "state", "-c", NAME, "-J")["state"] == "normal"
    done(vfioctl, "eeh", "inject", "ld-cfg-addr", "-c", NAME)
    assert refusal(vfioctl, "eeh", "inject", "ld-mem-addr", "-c", NAME) == (7, "eeh-failed")
    done(vfioctl, "eeh", "unfreeze", "-c", NAME)
    for kind in ("--hot", "--fundamental"):
        assert vfioctl("eeh", "reset", kind, "-c", NAME, deadline=100).status == 0
    done(vfioctl, "eeh", "configure", "-c", NAME)
    assert done(vfioctl, "eeh", "state", "-c", NAME).split() == ["CONTAINER", "STATE", NAME, "normal"]
    done(vfioctl, "eeh", "disable", "-c", NAME)
