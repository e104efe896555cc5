"""iommufd with the devices' own nodes: address spaces (IOAS) that devices are attached to, one by one."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from operator import or_
from typing import Any, NamedTuple
from uuid import UUID

from vfioctl.errors import Busy, KernelRefusal, NotFound
from vfioctl.host import iommufd, iommufd_hw, vfio_cdev, vfio_features
from vfioctl.host.holders import holders_of_node
from vfioctl.host.ioctl import CallError, open_node
from vfioctl.model import Device, Evidence
from vfioctl.ops.backends import Member, Offer, Piece
from vfioctl.ops.explained import common, explained
from vfioctl.policy.refusals import State
from vfioctl.policy.viability import is_vfio_bound
from vfioctl.uapi import iommufd as uapi

#: What a mapping allows devices to do, by the names that people use.
PROTECTIONS = {
    "rw": uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE,
    "r": uapi.IOMMU_IOAS_MAP_READABLE,
    "w": uapi.IOMMU_IOAS_MAP_WRITEABLE,
}

_HW_TYPES = {
    uapi.IOMMU_HW_INFO_TYPE_NONE: "none",
    uapi.IOMMU_HW_INFO_TYPE_INTEL_VTD: "intel-vtd",
    uapi.IOMMU_HW_INFO_TYPE_ARM_SMMUV3: "arm-smmuv3",
    uapi.IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV: "tegra241-cmdqv",
    uapi.IOMMU_HW_INFO_TYPE_AMD: "amd",
}
_HW_CAPABILITIES = {
    uapi.IOMMU_HW_CAP_DIRTY_TRACKING: "dirty-tracking",
    uapi.IOMMU_HW_CAP_PCI_PASID_EXEC: "pasid-exec",
    uapi.IOMMU_HW_CAP_PCI_PASID_PRIV: "pasid-priv",
    uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED: "ats-not-supported",
}
_RLIMIT_MODES = ("user", "process")


class Bound(NamedTuple):
    """A device that belongs to the iommufd: its descriptor, its id, and what it is attached to (None: to nothing): an
    IOAS, and the page table (HWPT) that the kernel uses for that."""

    group: int
    fd: int
    id: int
    ioas: int | None
    hwpt: int | None


class Iommufd:
    """Devices of any groups, in one or several address spaces. The first one is that of the mappings; what is copied
    from it is all that is in others."""

    name = "iommufd"
    opens_devices = True

    def __init__(self, dev: str = "/dev", charge: str | None = None) -> None:
        """``charge``: whose limit counts for what is mapped, ``user`` or ``process``. Raises VfioctlError."""
        self.members: dict[int, Member] = {}
        self.devices: dict[str, Bound] = {}
        #: Further address spaces, with the (iova, size, source iova) that have been copied into each.
        self.copies: dict[int, list[tuple[int, int, int]]] = {}
        #: The page tables that note what is written, each with the descriptor of its device.
        self.tracked: dict[int, int] = {}
        with explained(State(backend=self.name)):
            self.iommufd = open_node(iommufd.iommufd_path(dev))
            try:
                if charge is not None:  # the kernel takes it as long as there is no object
                    mode = _RLIMIT_MODES.index(charge)
                    iommufd.option_set(self.iommufd, uapi.IOMMU_OPTION_RLIMIT_MODE, mode)
                self.ioas = iommufd.ioas_alloc(self.iommufd)
            except BaseException:
                os.close(self.iommufd)
                raise

    @property
    def accounting(self) -> str | None:
        """Whose limit of locked memory counts."""
        with suppress(CallError):
            return _RLIMIT_MODES[iommufd.option_get(self.iommufd, uapi.IOMMU_OPTION_RLIMIT_MODE)]
        return None

    @property
    def state(self) -> State:
        """What is known when a call concerns all the groups."""
        known = common(member.state for member in self.members.values())
        return known._replace(backend=self.name, per_user=self.accounting == "user")

    # --- groups and devices ----------------------------------------------------------------------

    def join(self, member: Member) -> None:
        wanted = [device for device in member.group.devices if is_vfio_bound(device)]
        if not wanted:
            raise KernelRefusal(
                f"no device of group {member.group.id} is bound to a VFIO driver",
                hint=f"vfioctl bind --group {member.group.id}",
                subject=str(member.group.id),
                code="no-vfio-member",
            )
        self._refuse_while_tracked()
        bound: dict[str, Bound] = {}
        try:
            for device in wanted:
                bound[device.address] = self._bind(device, member)
        except BaseException:
            for each in bound.values():
                os.close(each.fd)  # which detaches and unbinds it
            raise
        self.members[member.group.id] = member
        self.devices |= bound

    def _bind(self, device: Device, member: Member) -> Bound:
        state = member.state._replace(backend=self.name, device=device.address)
        if device.cdev is None:
            raise KernelRefusal(
                f"{device.address} has no node of its own: this kernel was built without CONFIG_VFIO_DEVICE_CDEV",
                hint="--backend iommufd-group uses the group's node with iommufd",
                subject=device.address,
                code="no-cdev",
            )
        with explained(state):
            fd = open_node(device.cdev.path)
        try:
            number = _bind_with(member.tokens.get(device.address), fd, self.iommufd)
            hwpt = vfio_cdev.device_attach_iommufd_pt(fd, self.ioas)
        except BaseException as error:
            os.close(fd)  # before anybody looks who has it open
            if isinstance(error, CallError):
                with explained(_with_holders(state, error, device, member)):
                    raise
            raise
        return Bound(member.group.id, fd, number, self.ioas, hwpt)

    def leave(self, group: int) -> None:
        for name in [name for name, bound in self.devices.items() if bound.group == group]:
            bound = self.devices.pop(name)
            tracked = {hwpt: fd for hwpt, fd in self.tracked.items() if fd == bound.fd}
            self._untrack(tracked)
            self.tracked = {hwpt: fd for hwpt, fd in self.tracked.items() if hwpt not in tracked}
            with suppress(CallError):
                vfio_cdev.device_detach_iommufd_pt(bound.fd)
            os.close(bound.fd)
        del self.members[group]

    def open_device(self, group: int, name: str) -> int:
        return os.dup(self._bound(name).fd)

    def close_device(self, name: str, fd: int) -> None:
        os.close(fd)

    def _bound(self, name: str) -> Bound:
        if name not in self.devices:
            raise NotFound(f"{name} is not in the container", subject=name, code="not-in-container")
        return self.devices[name]

    # --- the address space of the mappings ---------------------------------------------------------

    def offer(self) -> Offer:
        with explained(self.state):
            found = iommufd.ioas_iova_ranges(self.iommufd, self.ioas)
        return Offer(max(found.alignment, mmap.PAGESIZE), found.ranges)

    def prepare(self, vaddr: int, size: int) -> None:
        pass

    def release(self, vaddr: int, size: int) -> None:
        pass

    def map(self, pieces: Iterable[Piece], prot: str) -> None:
        iommufd.ioas_map_each(self.iommufd, self.ioas, pieces, PROTECTIONS[prot])

    def unmap(self, iova: int, size: int) -> int:
        return iommufd.ioas_unmap(self.iommufd, self.ioas, iova, size)

    def unmap_all(self) -> int | None:
        return iommufd.ioas_unmap_all(self.iommufd, self.ioas)

    def details(self) -> Mapping[str, Any]:
        spaces = [self.ioas, *self.copies]
        return {
            "huge_pages": self._option(uapi.IOMMU_OPTION_HUGE_PAGES, self.ioas),
            "address_spaces": [self._space(number) for number in spaces],
            "iommu": {name: self._hardware(bound) for name, bound in self.devices.items()},
        }

    def _space(self, number: int) -> dict[str, Any]:
        return {
            "ioas": number,
            "devices": [name for name, bound in self.devices.items() if bound.ioas == number],
            "copies": [
                {"iova": iova, "size": size, "from": source}
                for iova, size, source in self.copies.get(number, ())
            ],
        }

    def _hardware(self, bound: Bound) -> dict[str, Any]:
        record: dict[str, Any] = {"devid": bound.id, "ioas": bound.ioas, "hwpt": bound.hwpt}
        try:
            found = iommufd_hw.get_hw_info(self.iommufd, bound.id)
        except CallError:  # Linux 6.2 to 6.5, and devices without an IOMMU
            return {**record, "type": None}
        return {
            **record,
            "type": _HW_TYPES.get(found.type, str(found.type)),
            "capabilities": [word for bit, word in _HW_CAPABILITIES.items() if found.capabilities & bit],
            "max_pasid_log2": found.max_pasid_log2,
            "registers": dict(found.registers),
        }

    def _option(self, option: int, object: int = 0) -> bool | None:
        with suppress(CallError):
            return bool(iommufd.option_get(self.iommufd, option, object))
        return None

    # --- what only iommufd can -------------------------------------------------------------------

    def allow(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Promises to map in these (first, last) only, so that a device that could not bear it is refused later."""
        with explained(self.state):
            iommufd.ioas_allow_iovas(self.iommufd, self.ioas, ranges)

    def create(self) -> int:
        """A further address space: its id."""
        with explained(self.state):
            number = iommufd.ioas_alloc(self.iommufd)
        self.copies[number] = []
        return number

    def destroy(self, number: int) -> None:
        """Destroys a further address space, to which no device is attached."""
        self._further(number)
        with explained(self.state):
            iommufd.ioas_unmap_all(self.iommufd, number)
            iommufd.destroy(self.iommufd, number)
        del self.copies[number]

    def copy(self, number: int, source: int, size: int, iova: int, prot: str) -> None:
        """Maps in a further address space what is mapped at ``source`` in the first; it is not charged twice."""
        self._further(number)
        with explained(self.state._replace(iova=iova, size=size)):
            iommufd.ioas_copy(self.iommufd, self.ioas, source, size, number, PROTECTIONS[prot], iova)
        self.copies[number].append((iova, size, source))

    def attach(self, name: str, number: int, pasid: int | None = None) -> None:
        """Lets a device use another address space; with ``pasid`` for its accesses with that only."""
        if number != self.ioas:
            self._further(number)
        if pasid is None:
            self._refuse_while_tracked()
        bound = self._bound(name)
        with explained(self.state._replace(device=name)):
            hwpt = vfio_cdev.device_attach_iommufd_pt(bound.fd, number, pasid)
        if pasid is None:
            self.devices[name] = bound._replace(ioas=number, hwpt=hwpt)

    def detach(self, name: str, pasid: int | None = None) -> None:
        """Takes a device, or its PASID, out of its address space: all its DMA is blocked then."""
        if pasid is None:
            self._refuse_while_tracked()
        bound = self._bound(name)
        with explained(self.state._replace(device=name)):
            vfio_cdev.device_detach_iommufd_pt(bound.fd, pasid)
        if pasid is None:
            self.devices[name] = bound._replace(ioas=None, hwpt=None)

    def _refuse_while_tracked(self) -> None:
        """Each device has a page table of its own then, which is to be given back as it was."""
        if self.tracked:
            raise Busy(
                "devices cannot come, or change their address space, while dirty pages are tracked",
                hint="vfioctl dirty stop ends it",
                code="dirty-tracking",
            )

    def _further(self, number: int) -> None:
        if number not in self.copies:
            raise NotFound(
                f"there is no further address space {number}",
                hint="vfioctl ioas create makes one; vfioctl container show lists them",
                subject=str(number),
                code="no-such-object",
            )

    # --- dirty pages -----------------------------------------------------------------------------

    def dirty_start(self) -> int:
        """Gives every device in the first address space a page table that notes what it writes; the page size."""
        tracked: dict[int, int] = {}
        try:
            for name, bound in self.devices.items():
                if bound.ioas != self.ioas:
                    continue
                with explained(self.state._replace(device=name)):
                    hwpt = iommufd_hw.hwpt_alloc(
                        self.iommufd, bound.id, self.ioas, uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING
                    )
                    tracked[hwpt] = bound.fd
                    vfio_cdev.device_attach_iommufd_pt(bound.fd, hwpt)
                    iommufd_hw.hwpt_set_dirty_tracking(self.iommufd, hwpt, True)
        except BaseException:
            self._untrack(tracked)
            raise
        self.tracked |= tracked
        return mmap.PAGESIZE

    def dirty_read(self, iova: int, size: int, page_size: int) -> bytes:
        """The pages of a range that were written since they were read last, as a bitmap, by any of the devices."""
        found = bytes(-(-size // page_size // 8))
        with explained(self.state._replace(iova=iova, size=size)):
            for hwpt in self.tracked:
                more = iommufd_hw.hwpt_get_dirty_bitmap(self.iommufd, hwpt, iova, size, page_size)
                found = bytes(map(or_, found, more))
        return found

    def dirty_stop(self) -> None:
        """Gives the devices back the page table that they had."""
        self._untrack(self.tracked)
        self.tracked = {}

    def _untrack(self, tracked: Mapping[int, int]) -> None:
        for hwpt, fd in tracked.items():
            with suppress(CallError):
                iommufd_hw.hwpt_set_dirty_tracking(self.iommufd, hwpt, False)
                vfio_cdev.device_attach_iommufd_pt(fd, self.ioas)
            with suppress(CallError):
                iommufd.destroy(self.iommufd, hwpt)

    # --- the end ---------------------------------------------------------------------------------

    def descriptors(self) -> dict[str, int]:
        return {"iommufd": self.iommufd}

    def close(self) -> None:
        devices, fd = list(self.devices.values()), self.iommufd
        self.devices, self.members, self.copies, self.iommufd = {}, {}, {}, -1
        with ExitStack() as stack:
            if fd >= 0:
                stack.callback(os.close, fd)
            for bound in devices:
                stack.callback(os.close, bound.fd)


def _with_holders(state: State, error: CallError, device: Device, member: Member) -> State:
    """With who else has the node that stands in the way of binding: the device's (EINVAL), or its group's (EBUSY)."""
    node = {errno.EINVAL: device.cdev, errno.EBUSY: member.group.node}.get(error.errno or 0)
    if error.call != "VFIO_DEVICE_BIND_IOMMUFD" or node is None:
        return state
    holders = holders_of_node(node.path)
    return state._replace(
        holders=tuple(map(str, holders)),
        seen=tuple(Evidence(node.path, f"open in {holder}") for holder in holders),
    )


def _bind_with(token: UUID | None, fd: int, iommufd: int) -> int:
    """Raises CallError. Up to Linux 6.16 a device's node takes no token, and asks for none: that of a physical function
    is set for those who open its virtual functions through their groups."""
    try:
        return vfio_cdev.device_bind_iommufd(fd, iommufd, token)
    except CallError as error:
        if token is None or error.errno != errno.EINVAL:
            raise
    number = vfio_cdev.device_bind_iommufd(fd, iommufd)
    try:
        vfio_features.device_vf_token(fd, token)
    except CallError as error:
        if error.errno != errno.ENOTTY:  # it is a virtual function
            raise
    return number
