"""What a hot reset may reach."""

from __future__ import annotations

import pytest

from vfioctl.errors import GuardRefusal
from vfioctl.model import Device
from vfioctl.policy import resets


def reached(address: str, driver: str | None, held: bool, group: int | None = 7) -> resets.Reached:
    return resets.judge(Device(address, "pci", group, driver=driver), address, group, held)


def test_what_is_held_on_a_vfio_driver_may_be_reset() -> None:
    scope = [reached("0000:01:00.0", "vfio-pci", True), reached("0000:01:00.1", "mlx5_vfio_pci", True)]
    assert [each.why_not for each in scope] == [None, None]
    resets.guard("0000:01:00.0", scope)


@pytest.mark.parametrize(
    ("each", "why_not"),
    [
        (reached("0000:01:00.1", "vfio-pci", False), "the container does not hold its group"),
        (reached("0000:01:00.1", "vfio-pci", False, None), "it is in no IOMMU group"),
        (reached("0000:01:00.1", "e1000", True), "its driver is e1000"),
        (reached("0000:01:00.1", "e1000", False), "its driver is e1000"),
        (reached("0000:01:00.1", None, True), "it has no driver, and a VFIO driver is wanted"),
        (resets.judge(None, "0000:01:00.1", 9, False), "the container does not hold its group"),
    ],
)
def test_what_is_refused(each: resets.Reached, why_not: str) -> None:
    assert each.why_not == why_not
    with pytest.raises(GuardRefusal) as caught:
        resets.guard("0000:01:00.0", [reached("0000:01:00.0", "vfio-pci", True), each])
    assert caught.value.code == "reset-scope"
    assert f"0000:01:00.1: {why_not}" in caught.value.message
    assert "0000:01:00.0:" not in caught.value.message.splitlines()[1]
