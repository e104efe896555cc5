"""Whether a reset of a slot or bus stays within what is held (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vfioctl.errors import GuardRefusal
from vfioctl.model import Device
from vfioctl.policy.viability import is_vfio_bound


class Reached(NamedTuple):
    """A device that a reset reaches. ``why_not``: why it must not be, in words; None when it may."""

    address: str
    group: int | None
    driver: str | None
    held: bool
    why_not: str | None


def judge(device: Device | None, address: str, group: int | None, held: bool) -> Reached:
    """``held``: the container holds it. The kernel also wants every device that it resets on a VFIO driver
    (drivers/vfio/pci/vfio_pci_core.c: vfio_pci_is_device_in_set)."""
    driver = device.driver if device is not None else None
    why_not = None
    if group is None and not held:
        why_not = "it is in no IOMMU group"
    elif device is not None and driver is None:
        why_not = "it has no driver, and a VFIO driver is wanted"
    elif device is not None and not is_vfio_bound(device):
        why_not = f"its driver is {driver}"
    elif not held:
        why_not = "the container does not hold its group"
    return Reached(address, group, driver, held, why_not)


def guard(address: str, scope: Iterable[Reached]) -> None:
    """Raises GuardRefusal (``reset-scope``) when a hot reset of ``address`` reaches what must not be."""
    outside = [each for each in scope if each.why_not is not None]
    if outside:
        raise GuardRefusal(
            "\n".join(
                [
                    f"a hot reset of {address} would reset what is not to be:",
                    *(f"{each.address}: {each.why_not}" for each in outside),
                ]
            ),
            hint=f"vfioctl bind {' '.join(each.address for each in outside)}; "
            "then have all their groups in one container (vfioctl container add)",
            subject=address,
            code="reset-scope",
        )
