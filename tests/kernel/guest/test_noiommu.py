"""Groups without an IOMMU: opened by name only, and called unsafe wherever they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of

Roles = Mapping[str, str]
MODE = Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
pytestmark = [pytest.mark.machine("no-iommu"), pytest.mark.kernels("6.12-iommufd")]


@pytest.fixture(scope="module")
def edu(vfioctl: Vfioctl, vfio_pci: Path, roles: Roles) -> Iterator[str]:
    """The edu device, bound in no-IOMMU mode."""
    MODE.write_text("Y")
    assert vfioctl("bind", roles["edu"]).status == 0
    yield roles["edu"]
    assert vfioctl("unbind", roles["edu"]).status == 0
    MODE.write_text("N")


@pytest.fixture
def container(vfioctl: Vfioctl, edu: str) -> Iterator[str]:
    opened = vfioctl("container", "open", "work", edu, "--backend", "noiommu", "-J")
    assert opened.status == 0, opened
    assert opened.json["containers"][0]["unsafe"] is True
    assert "nothing keeps its devices from any of the host's memory" in opened.stderr
    yield "work"
    assert vfioctl("container", "close", "work").status == 0


def test_the_group_is_marked(vfioctl: Vfioctl, edu: str) -> None:
    number = group_of(edu)
    (record,) = vfioctl("list-groups", "-J", str(number)).json["groups"]
    assert record["node"]["path"] == f"/dev/vfio/noiommu-{number}"
    checked = vfioctl("check-viable", edu, "--usable", "-J")
    (result,) = checked.json["results"]
    assert (checked.status, result["usable"]) == (1, False)
    assert "noiommu" in [problem["code"] for problem in result["problems"]]


@pytest.mark.parametrize(
    "command",
    [
        ("map",),
        ("iommu-info", "--attach"),
        ("container", "open", "work"),
        ("region", "read", "bar0", "0"),
    ],
    ids=" ".join,
)
def test_it_has_to_be_named(vfioctl: Vfioctl, edu: str, command: tuple[str, ...]) -> None:
    at = 2 if command[0] == "region" else len(command)
    refused = vfioctl(*command[:at], edu, *command[at:], "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "noiommu"), refused
    assert f"vfioctl container open NAME {group_of(edu)} --backend noiommu" in refused.json_error["hint"]
    assert refused.json_error["guards"][0]["guard"] == "noiommu"


def test_nothing_is_mapped(vfioctl: Vfioctl, container: str) -> None:
    shown = vfioctl("container", "show", container, "-J")
    assert (shown.json["backend"], shown.json["unsafe"]) == ("noiommu", True)
    assert (shown.json["iova_ranges"], shown.json["accounting"]) == (None, None)
    assert "is tainted" in shown.stderr
    listed = vfioctl("container", "list", "-o", "name,unsafe", "-n")
    assert listed.stdout.split() == [container, "yes"]
    refused = vfioctl("map", "-c", container, "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-iommu")
    assert "physical addresses" in refused.json_error["hint"]
    assert int(Path("/proc/sys/kernel/tainted").read_text()) & 1 << 6  # TAINT_USER


def test_registers_and_interrupts_work(vfioctl: Vfioctl, edu: str, container: str) -> None:
    read = vfioctl("region", "read", edu, "bar0", "0", "-c", container, "-J")
    assert read.status == 0, read
    assert "10000ed" in read.stdout or str(0x010000ED) in read.stdout
    assert vfioctl("irq", "test", edu, "msi", "-c", container).status == 0


def test_groups_with_an_iommu_have_other_backends(vfioctl: Vfioctl, edu: str) -> None:
    refused = vfioctl("container", "open", "work", edu, "--backend", "type1v2", "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "noiommu")


def test_it_takes_a_privilege(vfioctl: Vfioctl, edu: str) -> None:
    assert vfioctl("permit", edu, "--user", "nobody").status == 0
    refused = vfioctl("map", edu, "--backend", "noiommu", "-J", user=Vfioctl.unprivileged)
    assert (refused.status, refused.json_error["code"]) == (4, "permission")
    assert "CAP_SYS_RAWIO" in refused.json_error["message"]
    assert vfioctl("revoke", edu).status == 0
    assert driver_of(edu) == "vfio-pci"
