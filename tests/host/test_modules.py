"""Aliases of modules, and of what is built in."""

from __future__ import annotations

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
