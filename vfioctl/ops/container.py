"""A container: groups in an address space, memory that is mapped for their devices, and the devices that are open.

It belongs to the process that made it: memory is pinned for that process, and all ends with it.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Sequence
from typing import Self

from vfioctl.errors import Busy, NotFound, UsageError
from vfioctl.model import Device
from vfioctl.ops.backends import Backend, Member
from vfioctl.ops.backends.choice import choose
from vfioctl.ops.explained import common
from vfioctl.ops.mappings import Mappings
from vfioctl.policy import iova as planning
from vfioctl.policy.guards import refuse_without_iommu
from vfioctl.policy.refusals import State, explain


class Container:
    """Groups that share an address space. The methods raise VfioctlError, and have changed nothing then."""

    def __init__(self, dev: str = "/dev", wanted: str = "auto", charge: str | None = None) -> None:
        """``charge``: whose limit of locked memory counts, ``user`` or ``process`` (None: as the kernel has it)."""
        self.dev = dev
        self.wanted = wanted
        self.charge = charge
        self.backend: Backend | None = None
        self.members: dict[int, Member] = {}
        self.mappings = Mappings(self)
        #: Descriptors of open devices, by name.
        self.devices: dict[str, int] = {}
        #: The page size while dirty pages are tracked.
        self.dirty_page: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def space(self) -> Backend:
        """Raises UsageError while there is none, since no group is in the container."""
        if self.backend is None:
            raise UsageError(
                "no group is in the container", hint="vfioctl container add NAME GROUP", code="groups-invalid"
            )
        return self.backend

    @property
    def state(self) -> State:
        """What is known when a call concerns the whole container."""
        state = common(member.state for member in self.members.values())
        return state if self.backend is None else state._replace(backend=self.backend.name)

    # --- groups ----------------------------------------------------------------------------------

    def add(self, members: Sequence[Member]) -> None:
        """Takes groups in: all of them, or none."""
        numbers = [member.group.id for member in members]
        if not numbers or len(set(numbers)) != len(numbers):
            raise UsageError("at least one group is needed, and none twice", code="groups-invalid")
        without = [member.group.id for member in members if member.state.noiommu]
        refuse_without_iommu(
            without, len(numbers), self.wanted if self.backend is None else self.backend.name
        )
        backend = self.backend or choose(self.wanted, members, self.dev, self.charge)
        joined: list[int] = []
        try:
            for member in members:
                if member.group.id in self.members:
                    raise Busy(f"group {member.group.id} is in the container already", code="group-busy")
                backend.join(member)
                joined.append(member.group.id)
        except BaseException:
            if self.backend is None:
                backend.close()
            else:
                for number in reversed(joined):
                    backend.leave(number)
            raise
        self.backend = backend
        self.members |= {member.group.id: member for member in members}

    def remove(self, number: int) -> None:
        """Lets a group go, and closes its devices; with the last one go all mappings."""
        member = self.member(number)
        for name in [d.address for d in member.group.devices if d.address in self.devices]:
            self.close_device(name)
        self.space.leave(number)
        del self.members[number]
        if not self.members and self.backend is not None:
            self.backend.close()  # the kernel has forgotten its IOMMU, too
            self.backend = self.dirty_page = None
            self.mappings.forget()

    def member(self, number: int) -> Member:
        """Raises NotFound."""
        if number not in self.members:
            raise NotFound(
                f"group {number} is not in the container", subject=str(number), code="not-in-container"
            )
        return self.members[number]

    # --- devices ---------------------------------------------------------------------------------

    def find_device(self, name: str) -> tuple[int, Device]:
        """The group and the record of a device in the container. Raises NotFound."""
        for number, member in self.members.items():
            for device in member.group.devices:
                if device.address == name:
                    return number, device
        raise NotFound(f"{name} is not in the container", subject=name, code="not-in-container")

    def open_device(self, name: str) -> int:
        """A descriptor of a device; the container's own, which stays open. Opening resets the device."""
        if name not in self.devices:
            number, _ = self.find_device(name)
            self.devices[name] = self.space.open_device(number, name)
        return self.devices[name]

    def close_device(self, name: str) -> None:
        """Closes what ``open_device`` gave."""
        self.space.close_device(name, self.devices.pop(name))

    # --- the address space --------------------------------------------------------------------------------

    def plan_space(self) -> planning.Space:
        """The address space as it is now. Raises KernelRefusal where nothing can be mapped."""
        offer = self.space.offer()
        if offer is None:
            raise explain("VFIO_IOMMU_MAP_DMA", errno.ENOTTY, self.state)
        regions = [region for member in self.members.values() for region in member.group.reserved_regions]
        return planning.Space(
            page_sizes=offer.page_sizes or mmap.PAGESIZE,
            ranges=offer.ranges,
            reserved=[(region.start, region.end, region.type) for region in regions],
            mappings=[(run.iova, run.size) for run in self.mappings.runs],
            entries=offer.entries,
            pages=offer.pages,
            charge=offer.charge,
        )

    # --- dirty pages -----------------------------------------------------------------------------

    def dirty_start(self) -> None:
        """Begins to note which pages devices write. Raises Busy when that is done already."""
        if self.dirty_page is not None:
            raise Busy(
                "dirty pages are tracked already", hint="vfioctl dirty stop ends it", code="dirty-tracking"
            )
        self.dirty_page = self.space.dirty_start()

    def dirty_read(self) -> list[tuple[int, int]]:
        """(iova, size) of what devices have written since it was asked for last. Raises UsageError when nothing has
        been started."""
        page = self._dirty_page()
        found: list[tuple[int, int]] = []
        for each in self.mappings.runs:
            bitmap = int.from_bytes(self.space.dirty_read(each.iova, each.size, page), "little")
            found += [
                (each.iova + first * page, min(count * page, each.size - first * page))
                for first, count in planning.runs(bitmap)
            ]
        return found

    def dirty_stop(self) -> None:
        """Ends it."""
        self._dirty_page()
        self.space.dirty_stop()
        self.dirty_page = None

    def _dirty_page(self) -> int:
        if self.dirty_page is None:
            raise UsageError(
                "dirty pages are not tracked", hint="vfioctl dirty start begins it", code="dirty-tracking"
            )
        return self.dirty_page

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets everything go, in reverse order. Closing drops mappings, pinned pages and the ownership of DMA."""
        for name in list(self.devices):
            self.close_device(name)
        if self.backend is not None:
            self.backend.close()
            self.backend = None
        self.members.clear()
        self.mappings.forget()
