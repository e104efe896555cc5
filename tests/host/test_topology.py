"""PCI functions in their hierarchy, read from a tree as sysfs has it."""

from __future__ import annotations

from pathlib import Path

from vfioctl.host.attributes import read_attributes
from vfioctl.host.topology import read_functions
from vfioctl.model import PciLink

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


def put(device: Path, **files: str) -> None:
    (device / "power").mkdir(exist_ok=True)
    for name, text in files.items():
        (device / name.replace("power__", "power/")).write_text(f"{text}\n")


def test_nothing_is_woken(tmp_path: Path) -> None:
    """pci_config_pm_runtime_get: what is in D3cold is resumed, and the bridge above in any case."""
    root = "pci0000:00"
    port = add(tmp_path, f"{root}/0000:00:01.0", BRIDGE, bytes(64))
    below = add(tmp_path, f"{root}/0000:00:01.0/0000:01:00.0", ENDPOINT, bytes(64))
    hot = add(tmp_path, f"{root}/0000:00:02.0", ENDPOINT, bytes(64))
    cold = add(tmp_path, f"{root}/0000:00:03.0", ENDPOINT, bytes(64))
    old = add(tmp_path, f"{root}/0000:00:04.0", ENDPOINT, bytes(64))
    put(port, power_state="D3hot", power__runtime_status="suspended")
    put(below, power_state="D3hot", power__runtime_status="suspended")
    put(hot, power_state="D3hot", power__runtime_status="suspended")
    put(cold, power_state="D3cold", power__runtime_status="suspended")
    put(old, power__runtime_status="suspended")
    for device in (hot, cold):
        put(device, current_link_speed="8.0 GT/s PCIe", current_link_width="4")
    found = {function.address: function for function in read_functions(str(tmp_path))}
    assert {a: (f.asleep, len(f.config)) for a, f in found.items()} == {
        "0000:00:01.0": (False, 64),
        "0000:00:02.0": (False, 64),
        "0000:00:03.0": (True, 0),
        "0000:00:04.0": (True, 0),
        "0000:01:00.0": (True, 0),
    }
    assert found["0000:00:02.0"].link == PciLink("8.0 GT/s PCIe", 4, None, None)
    assert found["0000:00:03.0"].link is None
    assert read_attributes(str(tmp_path), "pci/0000:00:02.0")["current_link_width"] == 4
    assert read_attributes(str(tmp_path), "pci/0000:00:03.0")["current_link_width"] is None


def test_links(tmp_path: Path) -> None:
    words = ("current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
    for slot, values in enumerate(
        (
            ("16.0 GT/s PCIe", "8", "32.0 GT/s PCIe", "16"),
            ("Unknown", "0", "Unknown", "0"),
            ("Unknown", "0", "2.5 GT/s PCIe", "255"),
            ("Unknown speed", "0", "2.5 GT/s PCIe", "1"),
        )
    ):
        device = add(tmp_path, f"pci0000:00/0000:00:0{slot}.0", ENDPOINT)
        put(device, **dict(zip(words, values, strict=True)))
    assert [function.link for function in read_functions(str(tmp_path))] == [
        PciLink("16.0 GT/s PCIe", 8, "32.0 GT/s PCIe", 16),
        None,
        None,
        PciLink(None, None, "2.5 GT/s PCIe", 1),
    ]


def test_what_is_no_address_is_passed_over(tmp_path: Path) -> None:
    add(tmp_path, "pci0000:00/0000:00:00.0", ENDPOINT)
    for name in ("x\x1b[31m", "0000:00:00.8", "0000:00:00.0\n"):
        add(tmp_path, f"pci0000:00/{name}", ENDPOINT)
    assert [function.address for function in read_functions(str(tmp_path))] == ["0000:00:00.0"]
