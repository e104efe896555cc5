"""Regions and interrupts on a big-endian machine, whose user space cannot map what PCI devices decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl

Roles = Mapping[str, str]
pytestmark = pytest.mark.machine("zpci")

# The common configuration of a virtio device, at the start of BAR 4 (virtio 1.2, 4.1.4.3): all little-endian.
FEATURE_SELECT, FEATURE, MSIX_CONFIG, QUEUES, STATUS = "0", "4", "0x10", "0x12", "0x14"


@pytest.fixture(scope="module")
def nic(vfioctl: Vfioctl, roles: Roles) -> Iterator[str]:
    address = roles["nic_a"]
    assert vfioctl("bind", address).status == 0
    assert vfioctl("container", "open", "big", address).status == 0
    done = vfioctl("region", "write", address, "config", "COMMAND", "6", "--mask", "6", "--check")
    assert done.status == 0, done.stderr
    yield address
    assert vfioctl("container", "close", "big").status == 0
    assert vfioctl("unbind", address).status == 0


def value(vfioctl: Vfioctl, *arguments: object) -> int:
    found = vfioctl("region", "read", *arguments)
    assert found.status == 0, found.stderr
    return int(found.stdout, 16)


def test_registers_are_little_endian(vfioctl: Vfioctl, nic: str) -> None:
    assert value(vfioctl, nic, "config", "VENDOR_ID") == 0x1AF4
    assert value(vfioctl, nic, "config", "VENDOR_ID", "--width", "8") == 0xF4
    assert "mmap" not in vfioctl("region", "list", nic, "-J").json["regions"][0]["flags"]
    assert value(vfioctl, nic, "bar4", QUEUES, "--width", "16") == 3
    assert value(vfioctl, nic, "bar4", MSIX_CONFIG, "--width", "16") == 0xFFFF
    done = vfioctl("region", "write", nic, "bar4", FEATURE_SELECT, "1", "--check")
    assert done.status == 0, done.stderr
    assert value(vfioctl, nic, "bar4", FEATURE) & 1, "VIRTIO_F_VERSION_1"
    assert value(vfioctl, nic, "bar4", FEATURE_SELECT, "--width", "8") == 1, "its low byte is the first"
    raw = vfioctl("region", "dump", nic, "config", "-J").json["data"]
    assert raw.startswith("f41a")


def test_capabilities_are_decoded(vfioctl: Vfioctl, nic: str) -> None:
    document = vfioctl("region", "dump", nic, "config", "--decode", "-J").json
    names = [capability["name"] for capability in document["capabilities"]]
    assert "CAP_MSIX" in names and names.count("CAP_VNDR") >= 4
    assert document["problems"] == []


def test_interrupts(vfioctl: Vfioctl, nic: str) -> None:
    kinds = {irq["name"]: irq["vectors"] for irq in vfioctl("irq", "list", nic, "-J").json["irqs"]}
    assert kinds["msix"] >= 3 and "intx" not in kinds
    assert vfioctl("irq", "enable", nic, "msix", "--vectors", "2").status == 0
    assert vfioctl("irq", "test", nic, "msix", "--vector", "1").status == 0
    assert vfioctl("irq", "disable", nic, "msix").status == 0


def test_what_zpci_tells(vfioctl: Vfioctl, nic: str) -> None:
    live = vfioctl("show", nic, "-J").json["device"]["live"]
    assert live["zpci"]["base"]["start_dma"] == 0x100000000
    assert live["zpci"]["group"]["noi"] > 0


def test_the_whole_way(vfioctl: Vfioctl, roles: Roles, nic: str) -> None:
    rng = roles["rng"]
    assert vfioctl("bind", rng).status == 0
    found = vfioctl("selftest", rng, "-J")
    assert found.status == 0, found.stdout
    assert vfioctl("unbind", rng).status == 0
