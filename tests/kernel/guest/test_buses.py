"""Other buses than PCI, and the choice of the most specific driver, by the kernel's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, modprobe, override_of, remove_modules

PLATFORM = Path("/sys/bus/platform/devices")
#: The loudspeaker: a platform device of every PC that nothing depends on. Its driver is a module.
SPEAKER = PLATFORM / "pcspkr"
ALIASES = Path("/lib/modules", os.uname().release, "modules.alias")


def speaker() -> tuple[str | None, str]:
    """Driver and raw driver_override."""
    link = SPEAKER / "driver"
    return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None, (
        SPEAKER / "driver_override"
    ).read_text()


@pytest.fixture
def aliases() -> Iterator[Path]:
    """modules.alias, put back afterwards."""
    before = ALIASES.read_bytes()
    yield ALIASES
    ALIASES.write_bytes(before)


def test_a_platform_device_without_a_group(vfioctl: Vfioctl) -> None:
    before = speaker()
    assert before[1] == "(null)\n"
    assert vfioctl("show", "platform/pcspkr", "-P", "driver_override", "--value").stdout == "-\n"
    assert "pcspkr" not in vfioctl("list-devices", "-n", "-o", "address").stdout
    refused = vfioctl("bind", "platform/pcspkr", "-J")
    assert (refused.status, refused.json_error["code"]) == (3, "no-iommu-group")
    assert "vfio-platform" in refused.json_error["message"]
    assert vfioctl("bind", "platform/pcspkr", "--driver", "vfio-pci").status == 2
    assert vfioctl("bind", "platform/pcspkr", "--method", "new-id").status in (2, 3)
    assert speaker() == before


def test_a_platform_device_goes_and_comes_back(vfioctl: Vfioctl) -> None:
    before = speaker()
    modprobe("pcspkr")
    driver = before[0] or "pcspkr"  # udev may have chosen another one
    assert speaker() == (driver, "(null)\n")
    try:
        for back in ((), ("--to", driver)):
            left = vfioctl("unbind", "--leave-unbound", "platform/pcspkr", "-J")
            assert left.status == 0, left.stderr
            (record,) = left.json["devices"]
            assert (record["bus"], record["driver"], record["driver_before"]) == ("platform", None, driver)
            assert speaker() == (None, "(null)\n")
            given = vfioctl("unbind", *back, "platform/pcspkr", "-J")
            assert given.status == 0, given.stderr
            assert given.json["devices"][0]["driver"] == driver
            assert speaker() == (driver, "(null)\n")
    finally:
        if before[0] is None:
            remove_modules("pcspkr")
    assert speaker() == before


def test_auto_finds_no_variant(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    edu = roles["edu"]
    planned = vfioctl("bind", edu, "--driver", "auto", "--dry-run")
    assert planned.status == 0, planned.stderr
    assert planned.stdout.startswith(f"# {edu}: vfio-pci: only its alias for any device matches")
    bound = vfioctl("bind", edu, "--driver", "auto", "-J")
    assert bound.status == 0, bound.stderr
    assert "there is no variant" in bound.stderr
    assert driver_of(edu) == "vfio-pci"
    assert vfioctl("unbind", edu).status == 0


def test_auto_takes_the_most_specific_alias(
    vfioctl: Vfioctl, roles: Mapping[str, str], aliases: Path
) -> None:
    edu = roles["edu"]
    pattern = "vfio_pci:v00001234d000011E8sv*sd*bc*sc*i*"
    with aliases.open("a") as file:
        file.write(f"alias {pattern} vfio_pci\n")
    bound = vfioctl("bind", edu, "--driver", "auto", "-J")
    assert bound.status == 0, bound.stderr
    assert (
        f"{edu}: vfio-pci: its module vfio_pci has the most specific alias that matches, {pattern}"
        in bound.stderr
    )
    assert driver_of(edu) == "vfio-pci"
    assert vfioctl("unbind", edu).status == 0


def test_the_driver_of_a_variant_is_what_its_module_registers(
    vfioctl: Vfioctl, roles: Mapping[str, str], aliases: Path
) -> None:
    edu = roles["edu"]
    assert not Path("/sys/module/pci_stub").exists()
    with aliases.open("a") as file:
        file.write("alias vfio_pci:v00001234d000011E8sv*sd*bc*sc*i* pci_stub\n")
    planned = vfioctl("bind", edu, "--driver", "auto", "--dry-run").stdout
    assert "may have another name than the module pci_stub" in planned
    assert not Path("/sys/module/pci_stub").exists()
    try:
        bound = vfioctl("bind", edu, "--driver", "auto", "-J")
        assert bound.status == 0, bound.stderr
        assert bound.json["devices"][0]["driver"] == driver_of(edu) == "pci-stub"
        assert vfioctl("unbind", edu, "--leave-unbound").status == 0
        assert (driver_of(edu), override_of(edu)) == (None, None)
    finally:
        remove_modules("pci_stub")


def test_a_variant_whose_module_is_missing(vfioctl: Vfioctl, roles: Mapping[str, str], aliases: Path) -> None:
    edu = roles["edu"]
    before = driver_of(edu), override_of(edu)
    with aliases.open("a") as file:
        file.write("alias vfio_pci:v00001234d000011E8sv*sd*bc*sc*i* acme_vfio_pci\n")
    refused = vfioctl("bind", edu, "--driver", "auto", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-module"), refused.stderr
    assert "acme_vfio_pci" in refused.json_error["message"]
    assert "--driver vfio-pci" in refused.json_error["hint"]
    assert (driver_of(edu), override_of(edu)) == before
    assert vfioctl("bind", edu, "--driver", "vfio-pci").status == 0
    assert vfioctl("unbind", edu).status == 0


def test_nothing_here_makes_mediated_devices() -> None:
    """Neither Debian's kernels nor this machine have a parent; what is known of them is tested on the fake."""
    parents = Path("/sys/class/mdev_bus")
    assert not parents.exists() or not list(parents.iterdir())
