"""What ``tests/demo`` shows runs, on each kernel, and proves the DMA."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.kernel.guest.conftest import Vfioctl

SCRIPT = Path(__file__).parent.parent / "demo.sh"


def test_the_demonstration(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        env={**os.environ, **roles},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert "copied by the device from IOVA 0x100000 to IOVA 0x200000 are equal" in done.stdout
    assert "which is not mapped, leaves memory untouched" in done.stdout
    assert "The whole chain worked" in done.stdout.splitlines()[-1]
