"""The kernel's two rules, case by case."""

from __future__ import annotations

import pytest

from vfioctl.model import VFIO_DRIVERS, Device, IommuGroup, Kernel, Node, PciIds, ReservedRegion
from vfioctl.policy.viability import judge, release_at_least, uses_dma_ownership

NEW = Kernel("6.1.0-13-amd64", "x86_64", True)
OLD = Kernel("5.10.0-28-amd64", "x86_64", True)


def pci(class_: str = "020000", driver: str | None = None, vfio_dev: str | None = None) -> Device:
    ids = PciIds(class_, "8086", "10d3", "8086", "0000")
    return Device("0000:01:00.0", "pci", 7, ids, driver, vfio_dev=vfio_dev)


def other(bus: str, driver: str | None) -> Device:
    return Device("fe000000.dma", bus, 7, None, driver)


#: Device, whether it blocks by the rule of 5.19, whether it blocks by the one before.
CASES = [
    (pci(), False, False),
    (pci(driver="e1000e"), True, True),
    (pci(driver="pci-stub"), False, False),
    (pci(driver="uio_pci_generic"), True, True),
    (pci(driver="pci-pf-stub"), True, True),
    (pci(driver="nvidia", vfio_dev="vfio0"), False, False),
    (pci("060400", "pcieport"), False, False),
    (pci("060400", "shpchp"), True, False),
    (pci("060700", "yenta_cardbus"), True, False),
    (pci("060000", "host-edac"), True, True),
    (pci("060100", "lpc_ich"), True, True),
    (other("platform", "pl330"), True, True),
    (other("amba", "pl330"), True, True),
    (other("fsl-mc", "fsl_mc_dprc"), True, True),
    (other("platform", "vfio-platform"), False, False),
    (other("host1x", "host1x-drm"), False, True),
    (other("platform", None), False, False),
]


@pytest.mark.parametrize(
    ("device", "new", "old"),
    CASES,
    ids=[f"{c[0].bus}-{c[0].pci and c[0].pci.class_}-{c[0].driver}" for c in CASES],
)
def test_members(device: Device, new: bool, old: bool) -> None:
    group = IommuGroup(7, devices=(device,))
    # vfio-dev is itself a sign of the new rule.
    for kernel, blocks in ((NEW, new), (OLD, old)):
        verdict = judge(group, kernel)
        (member,) = verdict.members
        assert (member.blocking, verdict.viable) == (blocks, not blocks)
        assert (member.cure is not None) == blocks
        assert member.reason


@pytest.mark.parametrize("driver", sorted(VFIO_DRIVERS))
@pytest.mark.parametrize("kernel", [NEW, OLD], ids=["new", "old"])
def test_every_vfio_driver_is_fine(driver: str, kernel: Kernel) -> None:
    assert judge(IommuGroup(7, devices=(pci(driver=driver),)), kernel).viable


def test_one_blocking_member_is_enough() -> None:
    group = IommuGroup(7, devices=(pci(driver="vfio-pci"), pci("060400", "shpchp")))
    verdict = judge(group, NEW)
    assert not verdict.viable and not verdict.usable
    assert [member.cure for member in verdict.members] == [
        None,
        "vfioctl unbind --leave-unbound 0000:01:00.0",
    ]
    assert judge(group, OLD).usable


def test_an_empty_group_is_viable_and_of_no_use() -> None:
    verdict = judge(IommuGroup(7), NEW)
    assert verdict.viable and not verdict.usable


@pytest.mark.parametrize(
    ("kernel", "devices", "new"),
    [
        (Kernel("5.18.19"), (), False),
        (Kernel("5.19.0"), (), True),
        (Kernel("6.1"), (), True),
        (Kernel("5.14.0-427.el9", has_iommufd=True), (), True),
        (Kernel("5.14.0-427.el9"), (pci(driver="vfio-pci", vfio_dev="vfio0"),), True),
        (Kernel(None), (), True),
        (Kernel("strange"), (), True),
    ],
)
def test_which_rule(kernel: Kernel, devices: tuple[Device, ...], new: bool) -> None:
    assert uses_dma_ownership(IommuGroup(7, devices=devices), kernel) is new


def test_releases() -> None:
    assert release_at_least("6.12.3-amd64", 6, 6)
    assert release_at_least("10.0", 6, 12)
    assert not release_at_least("6.6.30", 6, 12)


@pytest.mark.parametrize(
    ("type_", "units", "release", "refused"),
    [
        ("direct", ("dmar0",), "6.1.0", True),
        ("direct", ("dmar0",), "5.10.0", True),
        ("direct", ("ivhd0",), "6.1.0", False),
        ("direct", ("ivhd0",), "6.12.0", True),
        ("direct-relaxable", ("dmar0",), "6.12.0", False),
        ("reserved", ("ivhd0",), "6.12.0", False),
        ("msi", ("dmar0",), "6.12.0", False),
    ],
)
def test_one_to_one_regions(type_: str, units: tuple[str, ...], release: str, refused: bool) -> None:
    region = ReservedRegion(0xBDDDE000, 0xDEFFFFFF, type_)
    group = IommuGroup(7, reserved_regions=(region,), devices=(pci(driver="vfio-pci"),))
    verdict = judge(group, Kernel(release, "x86_64", True, iommu_units=units))
    assert verdict.viable
    assert verdict.usable is not refused
    assert ("direct-region" in [problem.code for problem in verdict.problems]) is refused


@pytest.mark.parametrize(
    ("isolated", "allowed", "usable", "codes"),
    [
        (True, False, True, []),
        (None, False, True, []),
        (False, False, False, ["interrupts-not-isolated"]),
        (False, True, True, ["interrupts-not-isolated"]),
    ],
)
def test_interrupts(isolated: bool | None, allowed: bool, usable: bool, codes: list[str]) -> None:
    group = IommuGroup(7, devices=(pci(driver="vfio-pci"),))
    verdict = judge(group, Kernel("6.1", "x86_64", isolated, allowed))
    assert (verdict.usable, [problem.code for problem in verdict.problems]) == (usable, codes)


def test_no_iommu_is_viable_and_named() -> None:
    node = Node("/dev/vfio/noiommu-7", 0, 0, 0o600)
    verdict = judge(IommuGroup(7, "vfio-noiommu", node=node, devices=(pci(driver="vfio-pci"),)), NEW)
    assert verdict.viable
    assert "noiommu" in [problem.code for problem in verdict.problems]


def test_a_mediated_device_is_no_no_iommu_group() -> None:
    mdev = Device("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "mdev", 7, None, "vfio_mdev", vfio_dev="vfio0")
    group = IommuGroup(7, "vfio-noiommu", node=Node("/dev/vfio/7", 0, 0, 0o600), devices=(mdev,))
    verdict = judge(group, NEW)
    assert verdict.usable and not group.is_noiommu
