"""Aliases of modules, and of what is built in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vfioctl.host.modules import aliases
from vfioctl.model import ModuleAlias

RELEASE = "6.12.0"


def test_modules_and_what_is_built_in(tmp_path: Path) -> None:
    top = tmp_path / "lib/modules" / RELEASE
    top.mkdir(parents=True)
    (top / "modules.alias").write_text(
        "# Aliases extracted from modules themselves.\n"
        "alias pci:v00008086d* e1000e\n"
        "alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\n"
        "alias vfio-reset:acme,dma vfio_platform_acme\n"
    )
    (top / "modules.builtin.modinfo").write_bytes(
        b"vfio_pci.license=GPL v2\0vfio_pci.alias=vfio_pci:v*d*sv*sd*bc*sc*i*\0vfio_pci.parm=ids:a.alias=b (string)\0"
    )
    assert aliases(str(tmp_path), RELEASE, "vfio_pci:") == [
        ModuleAlias("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", "mlx5_vfio_pci"),
        ModuleAlias("vfio_pci:v*d*sv*sd*bc*sc*i*", "vfio_pci"),
    ]
    assert aliases(str(tmp_path), RELEASE, "vfio-reset:acme,dma") == [
        ModuleAlias("vfio-reset:acme,dma", "vfio_platform_acme")
    ]
    assert aliases(str(tmp_path), "5.10.0", "vfio_pci:") == []


def test_a_signal_waits_until_the_module_is_there(tmp_path: Path) -> None:
    """Otherwise its driver could take devices after they have been put back."""
    program = tmp_path / "modprobe"
    program.write_text(
        f"#!/bin/sh\nkill -TERM $PPID\nsleep 0.3\ngrep SigBlk /proc/self/status >{tmp_path}/loaded\n"
    )
    program.chmod(0o755)
    script = f"""
from vfioctl.host import modules
from vfioctl.ops.signals import Interrupted, Signals
modules._PATH = {str(tmp_path)!r}
try:
    with Signals():
        modules.modprobe("vfio-pci", 20)
except Interrupted:
    print(open({str(tmp_path / "loaded")!r}).read().split())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "['SigBlk:', '0000000000000000']\n"
