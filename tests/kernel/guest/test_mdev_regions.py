"""Regions, interrupts and migration of mediated devices: mtty, a serial card that the kernel makes up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import modprobe

pytestmark = pytest.mark.kernels("6.12-iommufd")
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
DISPLAY = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002"
TYPES = Path("/sys/class/mdev_bus/mtty/mdev_supported_types")
#: Registers of a 16550.
INTERRUPT_ENABLE, SCRATCH = "1", "7"


@pytest.fixture(scope="module")
def serial() -> Iterator[str]:
    modprobe("vfio-pci", "mtty")
    (TYPES / "mtty-2" / "create").write_text(UUID)
    yield UUID
    Path("/sys/bus/mdev/devices", UUID, "remove").write_text("1")


@pytest.mark.parametrize("backend", ["iommufd", "type1v2"])
def test_a_serial_port(vfioctl: Vfioctl, serial: str, backend: str) -> None:
    assert vfioctl("container", "open", "serial", serial, "--backend", backend).status == 0
    regions = {r["name"]: r for r in vfioctl("region", "list", serial, "-J").json["regions"]}
    assert (regions["bar0"]["size"], regions["bar0"]["space"]) == (8, "io")
    done = vfioctl("region", "write", serial, "bar0", SCRATCH, "0x5a", "--width", "8", "--check")
    assert done.status == 0, done.stderr
    assert vfioctl("region", "read", serial, "config", "VENDOR_ID").stdout == "0x4348\n"
    assert vfioctl("irq", "enable", serial, "intx").status == 0
    # The transmitter is empty: told to say so, it does.
    assert vfioctl("region", "write", serial, "bar0", INTERRUPT_ENABLE, "2", "--width", "8").status == 0
    assert vfioctl("irq", "wait", serial, "intx", "--timeout", "30").status == 0
    live = vfioctl("show", serial, "-J").json["device"]["live"]
    assert live["migration"]["flags"] == ["stop_copy", "p2p", "pre_copy"]
    assert live["migration"]["state"] == "running" and live["migration"]["stop_copy_length"] > 0
    assert live["features"]["dma_logging_start"] and not live["features"]["low_power_entry"]
    assert vfioctl("container", "close", "serial").status == 0


@pytest.fixture
def display() -> Iterator[str]:
    modprobe("mbochs")
    types = Path("/sys/class/mdev_bus/mbochs/mdev_supported_types")
    (types / "mbochs-small" / "create").write_text(DISPLAY)
    yield DISPLAY
    Path("/sys/bus/mdev/devices", DISPLAY, "remove").write_text("1")


def test_a_region_of_its_own_kind(vfioctl: Vfioctl, display: str) -> None:
    """A description of the monitor: mbochs is a display. It begins with where in the region that is, and its size."""
    assert vfioctl("container", "open", "display", display).status == 0
    regions = {r["name"]: r for r in vfioctl("region", "list", display, "-J").json["regions"]}
    edid = regions["gfx_edid"]
    assert (edid["type"], edid["subtype"], edid["flags"]) == (1, 1, ["read", "write"])
    head = vfioctl("region", "read", display, "gfx_edid", "0", "--count", "2", "-J")
    assert head.status == 0, head.stderr
    offset, longest = head.json["values"]
    assert 0 < offset < offset + longest <= edid["size"]
    assert vfioctl("region", "read", display, "config", "VENDOR_ID").stdout == "0x1234\n"
    assert vfioctl("container", "close", "display").status == 0


def test_the_whole_way(vfioctl: Vfioctl, serial: str) -> None:
    found = vfioctl("selftest", serial, "-J")
    assert found.status == 0, found.stdout
    checks = {check["step"]: check for check in found.json["checks"]}
    assert checks["interrupts"]["detail"] == "loopback of intx, msi"
    assert checks["config"]["detail"].startswith("4348:3253")
