"""What is known around a failed call or write (floor 3, pure)."""

from __future__ import annotations

from typing import NamedTuple

from vfioctl.model import VFIO_DRIVERS, Device, Evidence

#: Module parameters that decide what a driver takes.
PARAMETERS = ("vfio.enable_unsafe_noiommu_mode", "vfio_pci.disable_denylist", "vfio_pci.enable_sriov")


class State(NamedTuple):
    """What the caller knows around a failed call; None and empty stand for "not known".

    ``kernel`` is the release as (major, minor). ``viable`` is what the kernel said or, failing that, what was
    predicted; ``blocking`` names (address, driver) of the members in the way. Sizes are in bytes: ``size`` of
    the mapping at hand, ``wanted`` of all that are still to be made. ``memlock_limit`` is None for unlimited and,
    together with ``memlock_locked``, for unknown; ``per_user``: they count for all processes of the user. ``process``
    is the pid of who maps where it is not the caller; ``file_system`` is that of a file that is mapped for writing.

    Of a write to sysfs: ``device`` as commands name it, ``about`` the device as it is now, ``gone`` when it is not
    there any more; the ``driver`` that was asked, and whether it is ``registered``; ``numvfs`` virtual functions are
    enabled; ``switched_on``: which of the module parameters in PARAMETERS are (None: not known). ``seen`` is
    what else the caller has found out.
    """

    group: int | None = None
    kernel: tuple[int, int] | None = None
    viable: bool | None = None
    blocking: tuple[tuple[str, str], ...] = ()
    direct_region: bool | None = None
    interrupts_isolated: bool | None = None
    noiommu: bool = False
    container_set: bool | None = None
    node_owner: str | None = None
    node_mode: str | None = None
    user: str | None = None
    holders: tuple[str, ...] = ()
    backend: str | None = None
    iova: int | None = None
    size: int | None = None
    page_size: int | None = None
    wanted: int | None = None
    memlock_limit: int | None = None
    memlock_locked: int | None = None
    per_user: bool = False
    file_system: str | None = None
    process: int | None = None
    device: str | None = None
    about: Device | None = None
    gone: bool = False
    driver: str | None = None
    registered: bool | None = None
    numvfs: int | None = None
    switched_on: frozenset[str] | None = None
    seen: tuple[Evidence, ...] = ()


class Refusal(NamedTuple):
    """A call or write that failed with errno ``number``; ``path`` is the file that could not be opened or written,
    ``data`` what was to be written."""

    call: str
    number: int
    state: State
    path: str | None = None
    data: str = ""

    def before(self, major: int, minor: int) -> bool:
        """Whether the kernel is known to be older than a release."""
        return self.state.kernel is not None and self.state.kernel < (major, minor)

    def is_off(self, parameter: str) -> bool:
        """Whether a module parameter is known to be off."""
        return self.state.switched_on is not None and parameter not in self.state.switched_on

    @property
    def of_vfio(self) -> bool:
        """Whether the driver that was asked is one of VFIO's: all variants have that in their names."""
        driver = self.state.driver or ""
        return driver in VFIO_DRIVERS or "vfio" in driver
