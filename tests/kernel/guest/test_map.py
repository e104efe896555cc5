"""vfioctl map and iommu-info through the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of, modprobe, probe

MIB = 1 << 20
HOLE = 0xFEE00000


@pytest.fixture(scope="module")
def group(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[int]:
    assert vfioctl("bind", roles["edu"], roles["nic_a"]).status == 0
    yield group_of(roles["edu"])
    assert vfioctl("unbind", roles["edu"], roles["nic_a"]).status == 0


def test_the_proof_reports_what_was_mapped(vfioctl: Vfioctl, group: int) -> None:
    result = vfioctl("map", group, "--size", "2M", "--iova", "0x10000000", "-J")
    assert result.status == 0, result.stderr
    document = result.json
    assert document["schema_version"] == 1
    assert document["backend"] == "type1v2"
    assert document["groups"] == [group]
    assert document["mappings"] == [
        {"iova": 0x10000000, "size": 2 * MIB, "prot": "rw", "source": "anonymous"}
    ]
    assert document["page_sizes"][0] == 4096
    assert any(r["start"] <= 0x10000000 <= r["end"] for r in document["iova_ranges"])
    assert not any(r["start"] <= HOLE <= r["end"] for r in document["iova_ranges"])
    # It has let go of everything: the same again works.
    assert vfioctl("map", group, "--backend", "type1", "-J").json["backend"] == "type1"


def test_several_groups_share_a_container(vfioctl: Vfioctl, roles: Mapping[str, str], group: int) -> None:
    other = group_of(roles["nic_a"])
    result = vfioctl("map", group, roles["nic_a"], "--size", "64K", "--chunk", "4K", "-J")
    assert result.status == 0, result.stderr
    assert result.json["groups"] == sorted({group, other})
    assert [m["size"] for m in result.json["mappings"]] == [4096] * 16


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--size", "0"), 2, "size-invalid"),
        (("--size", "-4K"), 2, "size-invalid"),
        (("--size", "1X"), 2, "size-invalid"),
        (("--size", "4095"), 2, "size-misaligned"),
        (("--size", "8K", "--chunk", "5K"), 2, "size-misaligned"),
        (("--iova", "0x800"), 2, "iova-misaligned"),
        (("--iova", "zzz"), 2, "iova-invalid"),
        (("--iova", hex(HOLE)), 2, "iova-reserved"),
        (("--iova", hex(HOLE - 4096), "--size", "8K"), 2, "iova-reserved"),
        (("--iova", hex(1 << 60)), 2, "iova-out-of-range"),
        (("--size", "65536M", "--chunk", "4K"), 7, "no-entries-left"),
        (("--backend", "type9"), 2, "usage"),
        (("--prot", "x"), 2, "usage"),
    ],
)
def test_what_cannot_be_is_said_before_the_kernel_is_asked(
    vfioctl: Vfioctl, group: int, arguments: tuple[str, ...], status: int, code: str
) -> None:
    result = vfioctl("map", group, *arguments, "-J")
    assert result.status == status, result.stderr
    assert result.json_error["code"] == code
    assert result.json_error["message"]
    assert result.stdout == ""


def test_groups_that_cannot_be_mapped_say_why(vfioctl: Vfioctl, roles: Mapping[str, str], group: int) -> None:
    nobody = vfioctl("map", group_of(roles["vga"]), "-J")
    assert (nobody.status, nobody.json_error["code"]) == (1, "no-vfio-member")
    assert "vfioctl bind" in nobody.json_error["hint"]
    assert vfioctl("map", "9999", "-J").json_error["code"] == "no-such-group"
    assert vfioctl("map", "9999").status == 3
    modprobe("e1000")
    probe(roles["mf1"])
    assert driver_of(roles["mf1"]) == "e1000"
    assert vfioctl("bind", roles["mf0"]).status == 0
    result = vfioctl("map", roles["mf0"], "-J")
    assert result.status == 1
    error = result.json_error
    assert (error["code"], error["errno"]) == ("not-viable", "EPERM")
    assert roles["mf1"] in error["message"] and "e1000" in error["message"]
    assert vfioctl("unbind", roles["mf0"]).status == 0


def test_a_person_sees_progress_and_a_pipe_does_not(vfioctl: Vfioctl, group: int) -> None:
    watched = vfioctl("map", group, "--size", "256M", tty=True, env={"TERM": "xterm-256color"})
    assert watched.status == 0
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", watched.stdout)
    for stage in ("populate", "map"):  # a bar each, which reaches its end
        assert re.search(rf"\b{stage} [^\n]* 256\.0/256\.0 MiB", words), watched.stdout
    piped = vfioctl("map", group, "--size", "256M")
    assert piped.status == 0
    assert piped.stderr == "" and "\x1b" not in piped.stdout


def test_iommu_info(vfioctl: Vfioctl, group: int, kernel: str) -> None:
    look = vfioctl("iommu-info", group, "-J", user=Vfioctl.unprivileged)
    assert look.status == 0, look.stderr
    assert look.json["api_version"] == 0
    assert look.json["extensions"]["VFIO_TYPE1v2_IOMMU"] is True
    assert look.json["extensions"]["VFIO_SPAPR_TCE_IOMMU"] is False
    nesting = look.json["extensions"]["VFIO_TYPE1_NESTING_IOMMU"]
    assert nesting is kernel.startswith("6.1."), "it has gone with Linux 6.13"
    assert look.json["page_sizes"] is None
    assert {"start": HOLE, "end": HOLE + MIB - 1, "type": "msi"} in look.json["reserved_regions"]
    asked = vfioctl("iommu-info", group, "--attach", "-J").json
    assert asked["backend"] == "type1v2"
    assert asked["page_sizes"][0] == 4096
    assert asked["dma_avail"] == 65535
    assert asked["iova_ranges"][0]["start"] == 0
    assert vfioctl("iommu-info", "--attach").status == 2
