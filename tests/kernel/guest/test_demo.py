"""What ``tests/demo`` shows runs on real kernels, and the driver in it on every backend that translates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl

DEMO = Path(__file__).parent.parent / "demo.sh"
#: Some twenty commands of the script, each of which starts an interpreter.
pytestmark = pytest.mark.deadline(900)
BIN = Path("/run/bin")
UNSAFE = Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
DRIVER = Path(__file__).parent.parent / "dma.sh"


def shell(*words: str, roles: Mapping[str, str]) -> str:
    """What a script prints; it must end well."""
    done = subprocess.run(
        words,
        env={**os.environ, **roles},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _vfioctl_found() -> dict[str, str]:
    """An environment in which scripts find vfioctl: on other architectures the host's is not to be executed."""
    if shutil.which("vfioctl"):
        return {}
    BIN.mkdir(exist_ok=True)
    program = BIN / "vfioctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vfioctl "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}


def drive(device: str, *backend: str, roles: Mapping[str, str]) -> None:
    said = shell("sh", str(DRIVER), device, *backend, roles={**roles, **_vfioctl_found()})
    assert "copied by the device: the bytes are equal" in said
    assert "the IOMMU has refused it" in said


@pytest.mark.one_kernel("7.2")
def test_the_demonstration(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    said = shell("bash", str(DEMO), roles=roles)
    assert "FAIL" not in said
    assert "copied by the device: the bytes are equal" in said
    assert "The whole chain worked" in said.splitlines()[-1]


@pytest.mark.kernels("7.2-iommufd")
@pytest.mark.parametrize("backend", ["iommufd", "iommufd-group"])
def test_the_driver_with_iommufd(vfioctl: Vfioctl, roles: Mapping[str, str], backend: str) -> None:
    drive(roles["edu"], backend, roles=roles)


@pytest.mark.machine("smmuv3")
def test_the_driver_behind_an_smmu(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    drive(roles["edu"], roles=roles)


@pytest.mark.machine("amd-vi")
def test_the_driver_behind_an_amd_iommu(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    drive(roles["edu"], roles=roles)


@pytest.mark.machine("virtio-iommu")
def test_the_driver_behind_a_virtio_iommu(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    """Which does not isolate interrupts."""
    assert vfioctl("bind", roles["edu"]).status == 0
    try:
        refused = vfioctl("container", "open", "x", roles["edu"], "-J")
        assert (refused.status, refused.json_error["code"]) == (7, "interrupts-not-isolated")
        UNSAFE.write_text("Y")
        drive(roles["edu"], roles=roles)
    finally:
        UNSAFE.write_text("N")
        vfioctl("unbind", roles["edu"])
