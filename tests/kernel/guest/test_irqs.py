"""vfioctl irq on real devices: MSI, INTx and MSI-X raised by the device, loopbacks, the host's request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import modprobe

RAISE, ACKNOWLEDGE, STATUS = "0x60", "0x64", "0x24"


@pytest.fixture(scope="module")
def held(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    modprobe("vfio-pci")
    mine = [roles["edu"], roles["nic_a"]]
    assert vfioctl("bind", *mine).status == 0
    assert vfioctl("container", "open", "irqs", *mine).status == 0
    yield roles
    assert vfioctl("container", "close", "irqs").status == 0
    assert vfioctl("unbind", *mine).status == 0


@pytest.fixture
def edu(vfioctl: Vfioctl, held: Mapping[str, str]) -> str:
    found = vfioctl("region", "write", held["edu"], "config", "COMMAND", "6", "--mask", "6")
    assert found.status == 0, found.stderr
    return held["edu"]


def do(vfioctl: Vfioctl, *arguments: object) -> None:
    done = vfioctl(*arguments)
    assert done.status == 0, done.stderr


def test_what_there_is(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    edu = {irq["name"]: irq for irq in vfioctl("irq", "list", held["edu"], "-J").json["irqs"]}
    assert {name: irq["vectors"] for name, irq in edu.items()} == {"intx": 1, "msi": 1, "req": 1}
    assert edu["intx"]["flags"] == ["eventfd", "maskable", "automasked"]
    assert edu["req"]["enabled"] == [0], "the keeper listens"
    nic = {irq["name"]: irq for irq in vfioctl("irq", "list", held["nic_a"], "-J").json["irqs"]}
    assert (nic["msix"]["vectors"], nic["err"]["vectors"]) == (5, 1)


def test_msi(vfioctl: Vfioctl, edu: str) -> None:
    do(vfioctl, "irq", "enable", edu, "msi")
    for _ in range(2):
        do(vfioctl, "region", "write", edu, "bar0", RAISE, "1")
        do(vfioctl, "region", "write", edu, "bar0", ACKNOWLEDGE, "1")
    found = vfioctl("irq", "wait", edu, "msi", "--count", "2", "--timeout", "30", "-J")
    assert found.json["vectors"] == [{"vector": 0, "count": 2}]
    assert vfioctl("irq", "wait", edu, "msi", "--timeout", "0.2").status == 124
    refused = vfioctl("irq", "enable", edu, "intx", "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "irq-enabled")
    do(vfioctl, "irq", "test", edu, "msi")
    do(vfioctl, "irq", "disable", edu, "msi")


def test_a_device_that_is_no_bus_master_raises_no_msi(vfioctl: Vfioctl, edu: str) -> None:
    do(vfioctl, "irq", "enable", edu, "msi")
    do(vfioctl, "region", "write", edu, "config", "COMMAND", "0", "--mask", "4")
    do(vfioctl, "region", "write", edu, "bar0", RAISE, "1")
    missed = vfioctl("irq", "wait", edu, "msi", "--timeout", "0.3", "-J")
    assert (missed.status, missed.json_error["code"]) == (124, "no-interrupt")
    assert "bus master" in missed.json_error["hint"]
    do(vfioctl, "region", "write", edu, "bar0", ACKNOWLEDGE, "1")
    do(vfioctl, "irq", "disable", edu, "msi")


def test_intx_waits_until_it_is_unmasked(vfioctl: Vfioctl, edu: str) -> None:
    do(vfioctl, "irq", "enable", edu, "intx")
    do(vfioctl, "region", "write", edu, "bar0", RAISE, "1")
    do(vfioctl, "irq", "wait", edu, "intx", "--timeout", "30")
    assert vfioctl("irq", "wait", edu, "intx", "--timeout", "0.2").status == 124, "it is masked"
    do(vfioctl, "irq", "unmask", edu, "intx")
    do(vfioctl, "irq", "wait", edu, "intx", "--timeout", "30")  # the device still raises it
    do(vfioctl, "region", "write", edu, "bar0", ACKNOWLEDGE, "1")
    do(vfioctl, "irq", "unmask", edu, "intx")
    do(vfioctl, "irq", "mask", edu, "intx")
    do(vfioctl, "region", "write", edu, "bar0", RAISE, "2")
    assert vfioctl("irq", "wait", edu, "intx", "--timeout", "0.2").status == 124
    do(vfioctl, "irq", "unmask", edu, "intx")
    do(vfioctl, "irq", "wait", edu, "intx", "--timeout", "30")
    do(vfioctl, "region", "write", edu, "bar0", ACKNOWLEDGE, "2")
    do(vfioctl, "irq", "disable", edu, "intx")


def test_msix(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    """The card raises vector 0 by IVAR and ICS; the kernel has written its table, which can be read."""
    nic = held["nic_a"]
    do(vfioctl, "region", "write", nic, "config", "COMMAND", "6", "--mask", "6")
    do(vfioctl, "irq", "enable", nic, "msix", "--vectors", "3")
    flags = int(vfioctl("region", "read", nic, "config", "CAP_MSIX+2", "--width", "16").stdout, 16)
    assert flags == 0x8004
    table = vfioctl("region", "read", nic, "bar3", "0", "--count", "16", "-J").json
    if table["access"] == "mmap":
        assert table["values"][0] >> 20 == 0xFEE and table["values"][8] >> 20 == 0xFEE
        assert table["values"][12:] == [0, 0, 0, 1], "vector 3 is masked"
    # IVAR: other causes are vector 2; IMS and EIAC let it through; ICS raises it.
    do(vfioctl, "region", "write", nic, "bar0", "0xe4=0x800a0000", "0xd0=0x01000000", "0xc8=0x01000000")
    assert vfioctl("irq", "wait", nic, "msix", "--timeout", "30", "-J").json["vectors"] == [
        {"vector": 2, "count": 1}
    ]
    do(vfioctl, "irq", "disable", nic, "msix")
    do(vfioctl, "irq", "test", nic, "msix", "--vector", "4")
    do(vfioctl, "irq", "test", nic, "err")
    assert vfioctl("irq", "test", nic, "msix", "--vector", "5").status == 3


def test_the_host_wants_the_device_back(vfioctl: Vfioctl, held: Mapping[str, str]) -> None:
    edu = held["edu"]
    do(vfioctl, "irq", "test", edu, "req")
    assert vfioctl("irq", "wait", edu, "req", "--timeout", "0").status == 124
    shown = vfioctl("container", "show", "irqs", "-J").json
    assert not any(device["wanted_back"] for device in shown["devices"]), "a test is no request"
