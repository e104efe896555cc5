"""Which members of a group are moved, and what an id takes with it."""

from __future__ import annotations

from vfioctl.model import Device, IommuGroup, Kernel, PciIds, Snapshot
from vfioctl.policy.selection import also_matched, dynamic_id_for, members_to_bind, members_to_release
from vfioctl.policy.viability import judge

KERNEL = Kernel("6.1.0", "x86_64", True)
NIC = PciIds("020000", "8086", "10d3", "8086", "0000")


def device(number: int, class_: str = "020000", driver: str | None = None, group: int | None = 1) -> Device:
    return Device(f"0000:01:00.{number}", "pci", group, NIC._replace(class_=class_), driver)


def chosen(*members: Device) -> tuple[list[str], list[str]]:
    endpoints, bridges = members_to_bind(judge(IommuGroup(1, devices=members), KERNEL))
    return [d.address[-1] for d in endpoints], [d.address[-1] for d in bridges]


def test_what_needs_it_is_bound_and_the_rest_left_alone() -> None:
    assert chosen(
        device(0, driver="e1000e"),
        device(1),
        device(2, driver="vfio-pci"),
        device(3, driver="pci-stub"),
        device(4, "060400", "pcieport"),
        device(5, "060400", "shpchp"),
        device(6, "060400"),
        device(7, "060000"),
    ) == (["0", "1", "2"], ["5"])


def test_release_takes_vfio_members_and_what_vfioctl_took() -> None:
    members = (device(0, driver="vfio-pci"), device(1), device(2, driver="e1000e"), device(3, "060400"))
    found = members_to_release(IommuGroup(1, devices=members), ["pci/0000:01:00.3"])
    assert [d.address[-1] for d in found] == ["0", "3"]


def test_the_narrowest_id() -> None:
    assert dynamic_id_for(NIC, "vfio-pci").fields == "8086 10d3 8086 0000 020000 ffffff"


def test_twins() -> None:
    wanted = device(0)
    others = (
        device(1, driver="e1000e"),
        device(2),
        device(3, driver="vfio-pci"),
        device(4, "020001"),
        device(5, group=None),
    )
    snapshot = Snapshot(KERNEL, (), (wanted, *others))
    assert [d.address[-1] for d in also_matched(snapshot, [wanted])] == ["1", "2", "5"]
    assert also_matched(snapshot, []) == []


def test_objects_of_a_container_follow_it() -> None:
    container, child = (Device(name, "fsl-mc", 1, driver="x") for name in ("dprc.2", "dpni.1"))
    assert members_to_bind(judge(IommuGroup(1, devices=(child, container)), KERNEL)) == ([container], [])
