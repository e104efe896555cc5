"""What an argument names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.errors import NotFound, UsageError
from vfioctl.model import Device, IommuGroup, Kernel, Snapshot
from vfioctl.policy.subjects import Name, find_device, find_group, named_on_bus, parse


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("26", Name("group", "26", number=26)),
        ("0", Name("group", "0", number=0)),
        ("01:00.0", Name("address", "0000:01:00.0", "pci")),
        ("0000:01:00.0", Name("address", "0000:01:00.0", "pci")),
        ("0000:0A:1F.7", Name("address", "0000:0a:1f.7", "pci")),
        ("10000:e1:00.0", Name("address", "10000:e1:00.0", "pci")),
        ("10000001:e1:00.0", Name("address", "10000001:e1:00.0", "pci")),
        ("pci/01:00.0", Name("address", "0000:01:00.0", "pci")),
        ("platform/fe000000.dma", Name("address", "fe000000.dma", "platform")),
        ("fsl-mc/dprc.2", Name("address", "dprc.2", "fsl-mc")),
        (
            "83B8F4F2-509F-382F-3C1E-E6BFE0FA1001",
            Name("address", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "mdev"),
        ),
        ("eth0", Name("host", "eth0")),
        ("nvme0n1", Name("host", "nvme0n1")),
    ],
)
def test_names(text: str, name: Name) -> None:
    assert parse(text) == name


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "1 ", " 1", "1\n", "٣", "1" * 40, "..", "../x", "pci/../x", "a/b/c", "/etc/passwd", "0000:01:00.8",
     "0000:01:20.0", "0:01:00.0", "000000001:01:00.0", "01:00", "\x1b[31m", "eth0\n", "eth0;id", "a" * 33, "pci/", "/x",
     "x\0y", "26.0", "0x1a"],
)  # fmt: skip
def test_what_names_nothing(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.hint


@given(st.text(max_size=40))
def test_whatever_is_typed(text: str) -> None:
    """It is a name without a way out of a directory, or a usage error."""
    try:
        name = parse(text)
    except UsageError:
        return
    assert ".." not in name.text and "/" not in name.text and name.text.isprintable() and name.text.isascii()


@pytest.fixture
def snapshot() -> Snapshot:
    nic = Device("0000:01:00.0", "pci", 3)
    far = Device("10000:e1:00.0", "pci", 3)
    return Snapshot(Kernel(), (IommuGroup(3, devices=(nic, far)),), (nic, far))


def test_finding(snapshot: Snapshot) -> None:
    assert find_group(snapshot, 3).id == 3
    assert find_device(snapshot, "pci", "0000:01:00.0").group == 3
    with pytest.raises(NotFound, match="no IOMMU group 4"):
        find_group(snapshot, 4)
    with pytest.raises(NotFound, match="no device platform/x"):
        find_device(snapshot, "platform", "x")


def test_a_device_of_another_domain_is_hinted_at(snapshot: Snapshot) -> None:
    with pytest.raises(NotFound) as caught:
        find_device(snapshot, "pci", "0000:e1:00.0")
    assert caught.value.hint is not None and "10000:e1:00.0" in caught.value.hint


def test_what_is_named_by_a_bus_off_pci() -> None:
    texts = ["26", "platform/fe000000.dma", "pci/01:00.0", "01:00.0", "eth0", "../etc", "css/0.0.0313"]
    assert named_on_bus(texts) == ["platform/fe000000.dma", "css/0.0.0313"]
