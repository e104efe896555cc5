"""What a refused write to sysfs means, where the driver makes the difference."""

from __future__ import annotations

import errno
import os

import pytest

from vfioctl.errors import VfioctlError
from vfioctl.model import Write
from vfioctl.policy.refusals.writes import explain_write


def explained(driver: str, number: int, bus: str = "pci") -> VfioctlError:
    write = Write(f"/sys/bus/{bus}/drivers/{driver}/bind", "a")
    return explain_write(write, OSError(number, os.strerror(number)), f"{bus}/a")


def test_a_missing_reset_is_vfio_platforms_own() -> None:
    assert "reset" in explained("vfio-platform", errno.ENOENT, "platform").message
    assert "reset" not in explained("vfio-amba", errno.ENOENT, "amba").message


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EAGAIN, errno.EIO])
def test_without_a_variant_there_is_the_plain_driver(number: int) -> None:
    for driver, offered in (
        ("mlx5_vfio_pci", True),
        ("xe-vfio-pci", True),
        ("vfio-pci", False),
        ("nvme", False),
    ):
        assert ("--driver vfio-pci" in (explained(driver, number).hint or "")) == offered
