"""s390x: big-endian, a domain and a group for each PCI function, and DMA only in a window above 4 GiB."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of, override_of
from vfioctl.host import vfio, vfio_device
from vfioctl.uapi import vfio as uapi

Roles = Mapping[str, str]
pytestmark = pytest.mark.machine("zpci")
FIRST, LAST = 0x100000000, 0x17FFFFFFF
VIRTIO = 0x1AF4
VIRTIO_F_VERSION_1 = 1  # in the upper half


@pytest.fixture(scope="module")
def nic(vfioctl: Vfioctl, roles: Roles) -> Iterator[str]:
    """The network card, which comes from its host driver and goes back there."""
    address = roles["nic_a"]
    assert (address, driver_of(address)) == ("0002:00:00.0", "virtio-pci")
    done = vfioctl("bind", address, "-J")
    assert done.status == 0, done.stderr
    assert done.json["devices"][0]["driver_before"] == "virtio-pci"
    yield address
    assert vfioctl("unbind", address).status == 0
    assert (driver_of(address), override_of(address)) == ("virtio-pci", None)


def test_a_group_for_each_function(vfioctl: Vfioctl, roles: Roles) -> None:
    assert (os.uname().machine, sys.byteorder) == ("s390x", "big")
    rng = roles["rng"]
    groups = vfioctl("list-groups", "--devices", "-J").json["groups"]
    assert [[device["address"] for device in group["devices"]] for group in groups] == [
        [roles["nic_a"]],
        [rng],
    ]
    assert groups[1]["devices"][0]["vendor"] == f"{VIRTIO:04x}"
    assert [(region["start"], region["end"]) for region in groups[1]["reserved_regions"]] == [
        (0, FIRST - 1),
        (LAST + 1, (1 << 42) - 1),
    ]
    checked = vfioctl("check-viable", rng, "-J")
    assert checked.status == 1
    (member,) = checked.json["results"][0]["members"]
    assert (member["verdict"], member["reason"]) == ("blocking", "host-driver")
    assert member["cure"] == f"vfioctl bind {rng}"


def test_new_id_takes_just_one(vfioctl: Vfioctl, roles: Roles, nic: str) -> None:
    rng = roles["rng"]
    assert vfioctl("bind", rng, "--method", "new-id", "--user", "nobody").status == 0
    assert (driver_of(rng), override_of(rng)) == ("vfio-pci", None)
    assert vfioctl("check-viable", rng, "--live", "--usable").status == 0
    assert vfioctl("show", rng, "-P", "iommu", "--value").stdout == "s390-iommu.00000003\n"
    assert vfioctl("unbind", rng).status == 0
    assert driver_of(rng) == "virtio-pci"


def test_map_finds_the_window(vfioctl: Vfioctl, nic: str) -> None:
    mapped = vfioctl("map", nic, "--size", "2M", "-J")
    assert mapped.status == 0, mapped.stderr
    assert [mapping["iova"] for mapping in mapped.json["mappings"]] == [FIRST]
    assert mapped.json["iova_ranges"] == [{"start": FIRST, "end": LAST}]
    assert mapped.json["page_sizes"] == [4096]
    given = vfioctl("map", nic, "--size", "2M", "--iova", hex(LAST + 1 - (2 << 20)), "-J")
    assert given.json["mappings"][0]["iova"] == LAST + 1 - (2 << 20)


@pytest.mark.parametrize("iova", [0, 1 << 20, LAST + 1])
def test_what_lies_outside_is_refused(vfioctl: Vfioctl, nic: str, iova: int) -> None:
    refused = vfioctl("map", nic, "--iova", hex(iova), "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "iova-reserved")
    assert f"{FIRST:#x} would fit" in refused.json_error["hint"]


def test_what_the_device_tells(nic: str) -> None:
    """The capabilities and the registers of the device, in the byte order of each."""
    with (
        vfio.opened(vfio.container_path()) as container,
        vfio.opened(vfio.group_path(group_of(nic))) as group,
    ):
        vfio.group_set_container(group, container)
        vfio.set_iommu(container, uapi.VFIO_TYPE1v2_IOMMU)
        device = vfio.group_get_device_fd(group, nic)
        try:
            info = vfio_device.device_get_info(device)
            assert info.flags & uapi.VFIO_DEVICE_FLAGS_PCI
            assert info.zpci is not None
            assert (info.zpci.base["start_dma"], info.zpci.base["end_dma"]) == (FIRST, LAST)
            assert info.zpci.group["noi"] > 0
            config = vfio_device.device_get_region_info(device, uapi.VFIO_PCI_CONFIG_REGION_INDEX)
            assert struct.unpack("<H", os.pread(device, 2, config.offset)) == (VIRTIO,)
        finally:
            os.close(device)


def test_registers_have_the_byte_order_of_the_device(vfioctl: Vfioctl, nic: str) -> None:
    def read(*arguments: str) -> int:
        result = vfioctl("region", "read", nic, *arguments, "-c", "session")
        assert result.status == 0, result.stderr
        return int(result.stdout, 16)

    assert vfioctl("container", "open", "session", nic).status == 0
    try:
        assert read("config", "VENDOR_ID") == VIRTIO
        assert read("config", "0", "--width", "32") == 0x10001AF4
        # The features of a virtio device, the upper half of which is chosen by a register (virtio 1.2, 4.1.4.3).
        chosen = vfioctl("region", "write", nic, "bar4", "0=1", "--width", "32", "--check", "-c", "session")
        assert chosen.status == 0, chosen.stderr
        assert read("bar4", "4", "--width", "32") & VIRTIO_F_VERSION_1
        assert vfioctl("irq", "test", nic, "msix", "-c", "session").status == 0
        assert vfioctl("map", "-c", "session", "--size", "64K").status == 0
        assert vfioctl("memory", "write", "-c", "session", "--iova", hex(FIRST), stdin="z").status == 0
        got = vfioctl("memory", "read", "-c", "session", "--iova", hex(FIRST), "--size", "1")
        assert got.stdout == "z"
    finally:
        assert vfioctl("container", "close", "session").status == 0
