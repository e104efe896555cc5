"""The contract on the real kernel: the same assertions as on the imitated one (tests/ops/test_contract.py)."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.contract.looking import Looking
from tests.contract.moving import Moving
from tests.contract.world import MOVED, Result, state
from tests.kernel.guest import sysfs
from tests.kernel.guest.conftest import Vfioctl


class RealWorld:
    def __init__(self, vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
        self._vfioctl = vfioctl
        self.roles = roles

    def run(self, *arguments: object) -> Result:
        return self._vfioctl(*arguments)

    def driver(self, address: str) -> str | None:
        return sysfs.driver_of(address)

    def override(self, address: str) -> str | None:
        return sysfs.override_of(address)

    def group(self, address: str) -> int:
        return sysfs.group_of(address)

    def node(self, group: int) -> tuple[int, int, int] | None:
        try:
            status = os.stat(f"/dev/vfio/{group}")
        except FileNotFoundError:
            return None
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

    def write(self, path: str, data: str) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, data.encode())
        finally:
            os.close(fd)

    def load_module(self, name: str) -> None:
        sysfs.modprobe(name)

    def restore(self) -> None:
        """The drivers that the devices have after boot, by sysfs alone."""
        shutil.rmtree("/run/vfioctl", ignore_errors=True)
        for role, driver in MOVED.items():
            address = self.roles[role]
            device = Path("/sys/bus/pci/devices") / address
            (device / "driver_override").write_text("\n")
            if sysfs.driver_of(address) != driver:
                sysfs.unbind(address)
                if driver is not None:
                    Path(f"/sys/bus/pci/drivers/{driver}/bind").write_text(address)


@pytest.fixture
def world(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[RealWorld]:
    for driver in ("e1000e", "e1000", "shpchp", "pci-stub", "virtio-pci"):
        if not Path(f"/sys/bus/pci/drivers/{driver}").exists():  # some kernels have it built in
            sysfs.modprobe(driver)
    found = RealWorld(vfioctl, roles)
    found.restore()
    assert state(found) == {role: (driver, None) for role, driver in MOVED.items()}
    yield found
    found.restore()


class TestLooking(Looking):
    pass


class TestMoving(Moving):
    pass
