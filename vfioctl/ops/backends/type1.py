"""VFIO's own container with a type1 IOMMU, and iommufd where it stands in for one."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.host import vfio, vfio_dirty
from vfioctl.host.ioctl import CallError, open_node
from vfioctl.host.iommufd import vfio_ioas_get
from vfioctl.ops.backends import Member, Offer, Piece
from vfioctl.ops.explained import common, explained
from vfioctl.policy.refusals import State, not_viable
from vfioctl.uapi import vfio as uapi

#: The extensions that ``iommu-info`` reports, by their C names.
EXTENSIONS = {
    "VFIO_TYPE1_IOMMU": uapi.VFIO_TYPE1_IOMMU,
    "VFIO_SPAPR_TCE_IOMMU": uapi.VFIO_SPAPR_TCE_IOMMU,
    "VFIO_TYPE1v2_IOMMU": uapi.VFIO_TYPE1v2_IOMMU,
    "VFIO_DMA_CC_IOMMU": uapi.VFIO_DMA_CC_IOMMU,
    "VFIO_EEH": uapi.VFIO_EEH,
    "VFIO_TYPE1_NESTING_IOMMU": uapi.VFIO_TYPE1_NESTING_IOMMU,
    "VFIO_SPAPR_TCE_v2_IOMMU": uapi.VFIO_SPAPR_TCE_v2_IOMMU,
    "VFIO_NOIOMMU_IOMMU": uapi.VFIO_NOIOMMU_IOMMU,
    "VFIO_UNMAP_ALL": uapi.VFIO_UNMAP_ALL,
    "VFIO_UPDATE_VADDR": uapi.VFIO_UPDATE_VADDR,
}

#: The code of the error for a group that the kernel does not put into the same address space as others.
CANNOT_SHARE = "cannot-share"

#: What a mapping allows devices to do, by the names that people use.
PROTECTIONS = {
    "rw": uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE,
    "r": uapi.VFIO_DMA_MAP_FLAG_READ,
    "w": uapi.VFIO_DMA_MAP_FLAG_WRITE,
}


class ContainerBackend:
    """What all of VFIO's containers have in common: groups that are put in, and an IOMMU type that is set once."""

    #: The IOMMU types by the names of their backends.
    TYPES: Mapping[str, int]
    accounting: str | None = "process"

    def __init__(self, name: str, container: int, dev: str = "/dev") -> None:
        """``container``: a fresh one, which is this object's from then on."""
        self.name = name
        self.iommu_type = self.TYPES[name]
        self.dev = dev
        self.container = container
        self.opens_devices = is_iommufd(container)
        self.members: dict[int, Member] = {}
        self.groups: dict[int, int] = {}

    @property
    def state(self) -> State:
        """What is known when a call concerns all the groups."""
        return common(member.state for member in self.members.values())._replace(backend=self.name)

    def join(self, member: Member) -> None:
        state = member.state._replace(backend=self.name)
        number = member.group.id
        with explained(state):
            fd = open_node(group_node(number, state, self.dev))
        try:
            with explained(state):
                status = vfio.group_get_status(fd)
            state = state._replace(viable=status.viable, container_set=status.container_set)
            self._put_in(fd, number, state)
            if not status.viable:
                # Up to Linux 5.18 the kernel lets such a group in and refuses its devices later.
                raise not_viable(state)
            if not self.groups:
                with explained(state):
                    vfio.set_iommu(self.container, self.iommu_type)
        except BaseException:
            os.close(fd)  # which takes it out as well
            raise
        self.groups[number] = fd
        self.members[number] = member._replace(state=state)

    def _put_in(self, fd: int, number: int, state: State) -> None:
        try:
            with explained(state):
                vfio.group_set_container(fd, self.container)
        except VfioctlError as error:
            if not self.groups or not state.viable or state.container_set:
                raise
            others = ", ".join(map(str, self.groups))
            raise KernelRefusal(
                f"group {number} cannot share the address space of {others}: {error.message}",
                hint="put it into a container of its own: vfioctl container open --split does that by itself",
                errno=error.errno,
                subject=str(number),
                code=CANNOT_SHARE,
            ) from error

    def leave(self, group: int) -> None:
        try:
            vfio.group_unset_container(self.groups[group])
        except CallError as error:
            # Its last device has left it, and so it has left the container: somebody was waiting for that.
            if error.errno not in (errno.EINVAL, errno.ENODEV):
                with explained(self.members[group].state):
                    raise
        os.close(self.groups.pop(group))
        del self.members[group]

    def offer(self) -> Offer | None:
        return None

    def details(self) -> Mapping[str, Any]:
        return {"api_version": uapi.VFIO_API_VERSION, "extensions": ask_extensions(self.container)}

    def prepare(self, vaddr: int, size: int) -> None:
        pass

    def release(self, vaddr: int, size: int) -> None:
        pass

    def unmap(self, iova: int, size: int) -> int:
        return vfio.iommu_unmap_dma(self.container, iova, size)

    def unmap_all(self) -> int | None:
        if not vfio.check_extension(self.container, uapi.VFIO_UNMAP_ALL):
            return None
        return vfio.iommu_unmap_all(self.container)

    def map(self, pieces: Iterable[Piece], prot: str) -> None:
        vfio.iommu_map_dma_each(self.container, pieces, PROTECTIONS[prot])

    def open_device(self, group: int, name: str) -> int:
        with explained(self.members[group].state._replace(device=name)):
            return vfio.group_get_device_fd(self.groups[group], name, self.members[group].tokens.get(name))

    def close_device(self, name: str, fd: int) -> None:
        os.close(fd)

    def dirty_start(self) -> int:
        raise no_dirty_tracking(self.name)

    def dirty_read(self, iova: int, size: int, page_size: int) -> bytes:
        raise no_dirty_tracking(self.name)

    def dirty_stop(self) -> None:
        raise no_dirty_tracking(self.name)

    def descriptors(self) -> dict[str, int]:
        return {"container": self.container, **{f"group-{number}": fd for number, fd in self.groups.items()}}

    def close(self) -> None:
        groups, container = list(self.groups.values()), self.container
        self.groups, self.members, self.container = {}, {}, -1
        with ExitStack() as stack:
            if container >= 0:
                stack.callback(os.close, container)
            for fd in groups:
                stack.callback(os.close, fd)
                stack.callback(_unset, fd)


def _unset(fd: int) -> None:
    with suppress(CallError):  # closing it takes the group out as well
        vfio.group_unset_container(fd)


class Type1(ContainerBackend):
    """vfio_iommu_type1: ``type1v2``, or ``type1``, which unmaps what was not asked for."""

    TYPES = {"type1v2": uapi.VFIO_TYPE1v2_IOMMU, "type1": uapi.VFIO_TYPE1_IOMMU}

    def offer(self) -> Offer:
        info = self._info()
        return Offer(info.page_sizes, info.iova_ranges, info.dma_avail)

    def details(self) -> Mapping[str, Any]:
        info = self._info()
        return {
            **super().details(),
            "dirty_page_sizes": info.dirty_page_sizes,
            "max_dirty_bitmap_size": info.max_dirty_bitmap_size,
        }

    def dirty_start(self) -> int:
        sizes = self._info().dirty_page_sizes or 0
        with explained(self.state):
            vfio_dirty.iommu_dirty_pages_start(self.container)
        return sizes & -sizes or mmap.PAGESIZE

    def dirty_read(self, iova: int, size: int, page_size: int) -> bytes:
        with explained(self.state._replace(iova=iova, size=size)):
            return vfio_dirty.iommu_dirty_pages_get(self.container, iova, size, page_size)

    def dirty_stop(self) -> None:
        with explained(self.state):
            vfio_dirty.iommu_dirty_pages_stop(self.container)

    def _info(self) -> vfio.IommuInfo:
        with explained(self.state):
            return vfio.iommu_get_info(self.container)


class IommufdGroup(Type1):
    """An iommufd as the container of a group's node, for kernels without nodes of devices."""

    accounting = "user"

    def __init__(self, container: int, dev: str = "/dev") -> None:
        super().__init__("type1v2", container, dev)
        self.name = "iommufd-group"

    def details(self) -> Mapping[str, Any]:
        """With the address space that the calls of a container use here; there is none before a device is open."""
        ioas = None
        with suppress(CallError):
            ioas = vfio_ioas_get(self.container)
        return {**super().details(), "ioas": ioas}


def no_dirty_tracking(backend: str) -> KernelRefusal:
    """What to say where the kernel has no call for it."""
    return KernelRefusal(
        f"the backend {backend} does not track dirty pages",
        hint="type1v2 does, and iommufd where the IOMMU has that capability (vfioctl container show)",
        code="not-supported",
    )


def open_container(dev: str, node: str | None = None) -> int:
    """A fresh container whose interface vfioctl knows. Raises CallError or KernelRefusal."""
    fd = open_node(node or vfio.container_path(dev))
    try:
        version = vfio.get_api_version(fd)
        if version != uapi.VFIO_API_VERSION:
            raise KernelRefusal(
                f"VFIO speaks version {version} of its interface, and vfioctl knows {uapi.VFIO_API_VERSION} only",
                code="api-version",
                hint="use a vfioctl made for this kernel",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_iommufd(container: int) -> bool:
    """Whether iommufd stands in for the container: a fresh one answers ENODEV then, where VFIO's says no
    (drivers/iommu/iommufd/vfio_compat.c). Nothing is attached, and nothing pinned, before a device is open."""
    try:
        vfio.check_extension(container, uapi.VFIO_DMA_CC_IOMMU)
    except CallError as error:
        return error.errno == errno.ENODEV
    return False


def ask_extensions(container: int) -> dict[str, bool | None]:
    """The answers to all of EXTENSIONS; some change once an IOMMU is set. None: the question failed."""
    answers: dict[str, bool | None] = {}
    for name, number in EXTENSIONS.items():
        try:
            answers[name] = vfio.check_extension(container, number)
        except CallError:
            # iommufd in the place of VFIO's container answers ENODEV to what needs an address space.
            answers[name] = None
    return answers


def offered(dev: str) -> dict[str, bool | None]:
    """The extensions of a fresh container. Raises VfioctlError."""
    with explained(State()):
        fd = open_container(dev)
        try:
            return ask_extensions(fd)
        finally:
            os.close(fd)


def group_node(group: int, state: State | None, dev: str) -> str:
    """The path of a group's node."""
    return vfio.group_path(f"noiommu-{group}" if state is not None and state.noiommu else group, dev)
