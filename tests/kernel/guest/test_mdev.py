"""Mediated devices: those of the kernel's samples, which need no hardware."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import modprobe
from vfioctl.host import vfio
from vfioctl.uapi import vfio as uapi

pytestmark = pytest.mark.kernels("6.12-iommufd", "7.2-iommufd")

PARENTS = Path("/sys/class/mdev_bus")
DEVICES = Path("/sys/bus/mdev/devices")
UUID = "c0f3bc5e-6f0e-4b3e-9b1f-1f2d3c4b5a69"


@pytest.fixture
def mtty() -> Iterator[str]:
    """A serial port of the module mtty."""
    modprobe("mtty")
    (PARENTS / "mtty/mdev_supported_types/mtty-1/create").write_text(UUID)
    yield UUID
    if (DEVICES / UUID).exists():
        (DEVICES / UUID / "remove").write_text("1")


def group_of(uuid: str) -> int:
    return int((DEVICES / uuid / "iommu_group").readlink().name)


@contextmanager
def opened(uuid: str) -> Iterator[int]:
    """The device, held by this process."""
    with (
        vfio.opened(vfio.container_path()) as container,
        vfio.opened(vfio.group_path(group_of(uuid))) as group,
    ):
        vfio.group_set_container(group, container)
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        device = vfio.group_get_device_fd(group, uuid)
        try:
            yield device
        finally:
            os.close(device)


def wait_until(what: str, condition: object, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_the_samples_offer_their_types() -> None:
    modprobe("mtty", "mdpy", "mbochs")
    types = {parent.name: sorted(os.listdir(parent / "mdev_supported_types")) for parent in PARENTS.iterdir()}
    assert types == {
        "mtty": ["mtty-1", "mtty-2"],
        "mdpy": ["mdpy-hd", "mdpy-vga", "mdpy-xga"],
        "mbochs": ["mbochs-large", "mbochs-medium", "mbochs-small"],
    }


def test_a_mediated_device_is_listed_judged_and_mapped(vfioctl: Vfioctl, mtty: str) -> None:
    group = group_of(mtty)
    (record,) = vfioctl("list-devices", mtty, "-J").json["devices"]
    assert (record["bus"], record["driver"], record["group"], record["viable"]) == (
        "mdev",
        "mtty",
        group,
        True,
    )
    assert record["node"]["path"] == f"/dev/vfio/{group}"
    shown = vfioctl("show", mtty, "-J").json["device"]
    assert (shown["parent"], shown["usable"]) == ("mtty", True)
    assert shown["cdev"]["path"].startswith("/dev/vfio/devices/vfio")
    assert vfioctl("check-viable", mtty, "--live", "--usable").status == 0
    for backend in ("type1v2", "iommufd"):
        mapped = vfioctl("map", mtty, "--backend", backend, "-J")
        assert (mapped.status, mapped.json["backend"]) == (0, backend), mapped.stderr
    assert vfioctl("bind", mtty, "-J").json["changed"] is False
    refused = vfioctl("unbind", mtty, "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "mediated-device")
    assert f"echo 1 > {DEVICES / mtty}/remove" in refused.json_error["hint"]


def test_a_mediated_device_that_is_removed_while_it_is_open(vfioctl: Vfioctl, mtty: str) -> None:
    """The kernel waits for its user without limit; vfioctl does not, and names the user."""
    group = group_of(mtty)
    me = f"process {os.getpid()}"
    with opened(mtty):
        refused = vfioctl("unbind", mtty, "-J")
        assert (refused.status, refused.json_error["code"]) == (6, "group-busy"), refused
        assert me in refused.json_error["message"]
        writer = os.fork()
        if writer == 0:
            os.closerange(3, 1024)
            (DEVICES / mtty / "remove").write_text("1")
            os._exit(0)
        member = Path(f"/sys/kernel/iommu_groups/{group}/devices", mtty)
        wait_until("the kernel has not begun", lambda: not (member / "driver").exists())
        assert not (DEVICES / mtty).exists(), "it leaves its bus first"
        (record,) = vfioctl("list-devices", mtty, "-J").json["devices"]
        assert (record["bus"], record["driver"], record["group"]) == ("mdev", None, group)
        checked = vfioctl("check-viable", mtty, "-J").json["results"][0]
        assert checked["members"][0]["reason"] == "being-unbound"
        assert {holder["pid"] for holder in vfioctl("holders", mtty, "-J").json["holders"]} == {os.getpid()}
        refused = vfioctl("unbind", mtty, "-J")
        assert (refused.status, refused.json_error["code"]) == (6, "being-unbound"), refused
        assert me in refused.json_error["message"]
        assert os.waitpid(writer, os.WNOHANG) == (0, 0)
    assert os.waitpid(writer, 0)[1] == 0
    assert not os.path.lexists(member) and not os.path.exists(vfio.group_path(group))
    assert vfioctl("list-devices", mtty, "-J").json_error["code"] == "no-such-device"
    assert vfioctl("recover", "-J").json["changed"] is False
