"""vfioctl reset on real devices: a function, and a slot with two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import modprobe, without_driver

pytestmark = pytest.mark.kernels("6.1", "7.2", "6.12-iommufd")


@pytest.fixture(scope="module")
def held(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    modprobe("vfio-pci")
    mine = [roles["nvme"], roles["mf0"], roles["edu"], roles["nic_a"]]
    with without_driver(roles["mf1"]):
        bound = vfioctl("bind", *mine)
        assert bound.status == 0, bound.stderr
        opened = vfioctl("container", "open", "resets", *mine)
        assert opened.status == 0, opened.stderr
        yield roles
        assert vfioctl("container", "close", "resets").status == 0
        assert vfioctl("unbind", *mine, roles["mf1"]).status == 0


def test_a_function(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    nvme = held["nvme"]
    found = vfioctl("reset", nvme, "-J")
    assert found.status == 0, found.stderr
    assert (found.json["method"], found.json["changed"]) == ("function", True)
    assert vfioctl("region", "read", nvme, "config", "VENDOR_ID").stdout == "0x1b36\n"


def test_a_device_without_any_reset(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    refused = vfioctl("reset", held["edu"], "-J")
    assert (refused.status, refused.json_error["code"], refused.json_error["errno"]) == (
        7,
        "no-reset",
        "EINVAL",
    )
    shown = vfioctl("reset", held["edu"], "--show-scope", "-J")
    assert (shown.status, shown.json["function_reset"], shown.json["hot_reset"]) == (1, False, False)
    refused = vfioctl("reset", held["edu"], "--hot", "-J")
    assert (refused.status, refused.json_error["errno"]) == (7, "ENODEV")


def test_a_slot(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    mf0, mf1 = held["mf0"], held["mf1"]
    shown = vfioctl("reset", mf0, "--show-scope", "-J")
    assert shown.status == 1
    assert [each["address"] for each in shown.json["scope"]] == [mf0, mf1]
    assert [each["address"] for each in shown.json["scope"] if each["problem"]] == [mf1]
    refused = vfioctl("reset", mf0, "--hot", "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "reset-scope")
    assert vfioctl("region", "write", mf0, "bar0", "4", "0x12345678").status == 0
    assert vfioctl("bind", mf1).status == 0
    assert vfioctl("reset", mf0, "--show-scope").status == 0
    done = vfioctl("reset", mf0, "--hot", "-J")
    assert done.status == 0, done.stderr
    assert (done.json["method"], len(done.json["scope"])) == ("hot", 2)


def test_a_slot_of_its_own(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """A register of the card is as after power-on."""
    nic = held["nic_a"]
    before = vfioctl("region", "read", nic, "bar0", "0x38").stdout  # VET
    assert vfioctl("region", "write", nic, "bar0", "0x38", "0x1234", "--check").status == 0
    assert vfioctl("reset", nic, "--hot").status == 0
    assert vfioctl("region", "read", nic, "bar0", "0x38").stdout == before
