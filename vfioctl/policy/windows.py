"""Which windows of a POWER IOMMU can be made (floor 3, pure).

Source: tce_iommu_create_window of drivers/vfio/vfio_iommu_spapr_tce.c, and the platforms' own create_table
(arch/powerpc/platforms/pseries/iommu.c, powernv/pci-ioda.c).
"""

from __future__ import annotations

from typing import Protocol

from vfioctl.errors import UsageError
from vfioctl.policy.iova import page_sizes
from vfioctl.policy.sizes import LIMIT, format_size


class Dynamic(Protocol):
    """What windows the platform makes: a bitmap of page sizes, and how many levels a table has at most."""

    @property
    def page_sizes(self) -> int: ...
    @property
    def levels(self) -> int: ...


def check_window(dynamic: Dynamic, page_size: int, size: int, levels: int) -> None:
    """Raises UsageError (``window-invalid``) for a window that the platform does not make; sizes are in bytes."""
    if page_size & (page_size - 1) or not page_size & dynamic.page_sizes:
        offered = ", ".join(map(format_size, page_sizes(dynamic.page_sizes)))
        raise _invalid(f"a window has no pages of {format_size(page_size)} here", f"there are: {offered}")
    if size & (size - 1) or not page_size <= size < LIMIT:
        raise _invalid(
            f"a window of {format_size(size)} cannot be",
            f"its size is a power of two, and {format_size(page_size)} at least",
        )
    if not 1 <= levels <= dynamic.levels:
        raise _invalid(
            f"a window's table cannot have {levels} levels here", f"there are 1 to {dynamic.levels}"
        )


def _invalid(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="window-invalid")
