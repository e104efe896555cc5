"""PCI functions in their hierarchy, read from a tree as sysfs has it."""

from __future__ import annotations

from pathlib import Path

from vfioctl.host.topology import read_functions

ENDPOINT = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"
BRIDGE = "pci:v00001B36d0000000Csv00000000sd00000000bc06sc04i00"
VMD = "pci:v00008086d0000201Dsv00000000sd00000000bc01sc04i00"


def add(root: Path, path: str, modalias: str, config: bytes | None = None) -> Path:
    device = root / "sys/devices" / path
    device.mkdir(parents=True)
    (device / "modalias").write_text(f"{modalias}\n")
    if config is not None:
        (device / "config").write_bytes(config)
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / device.name).symlink_to(f"../../../devices/{path}")
    return device


def test_places(tmp_path: Path) -> None:
    add(tmp_path, "pci0000:00/0000:00:1c.0", BRIDGE, b"\x36\x1b" + bytes(62))
    nic = add(tmp_path, "pci0000:00/0000:00:1c.0/0000:01:00.1", ENDPOINT, bytes(4096))
    (nic / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    (nic / "removable").write_text("fixed\n")
    add(tmp_path, "pci0000:00/0000:00:0e.0", VMD)
    add(tmp_path, "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", BRIDGE)
    add(tmp_path, "platform/soc/fee00000.pcie/pci0001:00/0001:00:00.0", ENDPOINT)

    owner, port, found, far, hidden = read_functions(str(tmp_path))
    assert (port.address, port.parent, port.root_bus, port.config[:2]) == (
        "0000:00:1c.0",
        None,
        "pci0000:00",
        b"\x36\x1b",
    )
    assert (found.parent, found.bus, found.slot, found.function) == ("0000:00:1c.0", "0000:01", 0, 1)
    assert (found.group, found.removable, len(found.config)) == (7, "fixed", 4096)
    assert found.ids.class_ == "020000"
    assert (owner.config, owner.domain_owner, owner.group) == (b"", None, None)
    assert (hidden.parent, hidden.root_bus, hidden.domain_owner) == (None, "pci10000:e0", "0000:00:0e.0")
    assert (far.path, far.parent, far.domain_owner) == ("pci0001:00/0001:00:00.0", None, None)


def test_no_pci(tmp_path: Path) -> None:
    assert read_functions(str(tmp_path)) == ()
