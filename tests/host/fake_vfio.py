"""A VFIO that obeys the kernel's rules of groups, containers and type1 mappings, and can fail at any call.

It stands behind ``ioctl`` and ``open_node`` of vfioctl.host.vfio. The rules are held to the real kernel by
tests/ops/contract.py, which runs on both.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

from tests.fakes.descriptors import targets
from tests.host import fake_spapr
from tests.host.fake_spapr import SpaprContainer
from vfioctl.host.ioctl import CallError
from vfioctl.uapi import vfio
from vfioctl.uapi.ioctl import Request

NAME = "vfioctl-fake"


class Group:
    """A group node; ``strict`` is Linux 5.19 and later, which asks for viability at SET_CONTAINER."""

    def __init__(self, number: int, viable: bool = True, strict: bool = True, noiommu: bool = False) -> None:
        self.number = number
        self.noiommu = noiommu
        self.viable = viable
        self.strict = strict
        self.fd: int | None = None
        self.container: Container | None = None


class Container:
    """A container with the address space of VT-d as Linux 6.12 shows it."""

    def __init__(self, kernel: FakeVfio) -> None:
        self.kernel = kernel
        self.groups: list[Group] = []
        self.iommu: int | None = None
        self.mappings: dict[int, int] = {}
        self.spapr: SpaprContainer | None = None

    def leave(self, group: Group) -> None:
        self.groups.remove(group)
        group.container = None
        if self.spapr is not None:
            self.spapr.group_leaves()
        if not self.groups:
            self.iommu = self.spapr = None
            self.mappings.clear()


class FakeVfio:
    """A /dev/vfio with some groups."""

    def __init__(self, *groups: Group) -> None:
        self.groups = {group.number: group for group in groups}
        self.files: dict[int, Container | Group] = {}
        self.backends = {1, 3}
        self.partition = False
        self.eeh_state = 0
        self.api_version = 0
        self.page_sizes = 0x40201000
        self.ranges = [(0, 0xFEDFFFFF), (0xFEF00000, 0x7FFFFFFFFF)]
        self.entry_limit = 65535
        self.memlock: int | None = None
        self.calls: list[str] = []
        self.fail: Callable[[int, str], None] = lambda number, call: None

    def left_open(self) -> list[int]:
        """The descriptors that nobody has closed."""
        return [fd for fd, target in targets().items() if NAME in target]

    def reap(self) -> None:
        """What the kernel does when descriptors are closed."""
        alive = set(self.left_open())
        for fd in [fd for fd in self.files if fd not in alive]:
            file = self.files.pop(fd)
            if isinstance(file, Group):
                file.fd = None
                if file.container is not None:
                    file.container.leave(file)

    def open_node(self, path: str) -> int:
        self._enter("open")
        name = path.rpartition("/")[2]
        if name == "vfio":
            return self._file(Container(self))
        group = self.groups.get(int(name.removeprefix("noiommu-")))
        if group is None or group.noiommu != name.startswith("noiommu-"):
            raise CallError("open", errno.ENOENT, path)
        if group.fd is not None:
            raise CallError("open", errno.EBUSY, path)
        group.fd = self._file(group)
        return group.fd

    def ioctl(self, fd: int, request: Request, argument: int | bytearray = 0) -> int:
        self._enter(request.name)
        file = self.files[fd]
        try:
            if isinstance(file, Group):
                assert isinstance(argument, bytearray) or argument == 0
                return self._group(file, request, argument)
            return self._container(file, request, argument)
        except OSError as error:
            raise CallError(request.name, error.errno or 0) from error

    def _enter(self, call: str) -> None:
        self.reap()
        self.calls.append(call)
        self.fail(len(self.calls), call)

    def _file(self, file: Container | Group) -> int:
        fd = os.memfd_create(NAME)
        self.files[fd] = file
        return fd

    def _group(self, group: Group, request: Request, argument: bytearray | int) -> int:
        if request == vfio.VFIO_GROUP_GET_STATUS:
            assert isinstance(argument, bytearray)
            flags = (group.viable and 1) | (group.container is not None and 2)
            struct.pack_into("=I", argument, 4, flags)
        elif request == vfio.VFIO_GROUP_SET_CONTAINER:
            assert isinstance(argument, bytearray)
            container = self.files.get(struct.unpack("=i", argument)[0])
            _refuse(errno.EINVAL, group.container is not None)
            _refuse(errno.EBADFD, not isinstance(container, Container))
            _refuse(errno.EPERM, group.strict and not group.viable)
            assert isinstance(container, Container)
            _refuse(errno.EPERM, any(other.noiommu != group.noiommu for other in container.groups))
            if container.spapr is not None:
                container.spapr.group_comes()
            group.container = container
            container.groups.append(group)
        elif request == vfio.VFIO_GROUP_UNSET_CONTAINER:
            _refuse(errno.EINVAL, group.container is None)
            assert group.container is not None
            group.container.leave(group)
        else:
            raise OSError(errno.ENOTTY, "")
        return 0

    def _container(self, container: Container, request: Request, argument: int | bytearray) -> int:
        if request == vfio.VFIO_GET_API_VERSION:
            return self.api_version
        if request == vfio.VFIO_CHECK_EXTENSION:
            return int(argument in self.backends or (argument == 9 and bool(self.backends & {1, 3})))
        if request == vfio.VFIO_SET_IOMMU:
            assert isinstance(argument, int)
            _refuse(errno.EINVAL, not container.groups or container.iommu is not None)
            _refuse(errno.ENODEV, argument not in self.backends)
            _refuse(errno.ENODEV, (argument == 8) != container.groups[0].noiommu)
            container.iommu = argument
            if argument in (fake_spapr.V1, fake_spapr.V2):
                container.spapr = SpaprContainer(argument == fake_spapr.V2, self.partition)
            return 0
        _refuse(errno.EINVAL, container.iommu is None)
        if container.spapr is not None:
            container.spapr.eeh_state = self.eeh_state
            return container.spapr.ioctl(request, argument, self.memlock)
        _refuse(errno.ENOTTY, container.iommu == 8)
        assert isinstance(argument, bytearray)
        if request == vfio.VFIO_IOMMU_GET_INFO:
            self._info(container, argument)
        elif request == vfio.VFIO_IOMMU_MAP_DMA:
            self._map(container, vfio.vfio_iommu_type1_dma_map.unpack(argument))
        elif request == vfio.VFIO_IOMMU_UNMAP_DMA:
            question = vfio.vfio_iommu_type1_dma_unmap.unpack(argument)
            question.size = self._unmap(container, question)
            argument[:] = question.pack()
        else:
            raise OSError(errno.ENOTTY, "")
        return 0

    def _info(self, container: Container, buffer: bytearray) -> None:
        migration = struct.pack("=HHII4xQQ", 2, 1, 24 + 32, 0, 4096, 1 << 28)
        avail = struct.pack("=HHII", 3, 1, 24 + 32 + 12, self.entry_limit - len(container.mappings))
        ranges = struct.pack("=HHII4x", 1, 1, 0, len(self.ranges))
        chain = migration + avail + ranges + b"".join(struct.pack("=QQ", *each) for each in self.ranges)
        room = struct.unpack_from("=I", buffer)[0]
        assert room == len(buffer)
        info = vfio.vfio_iommu_type1_info(flags=3, iova_pgsizes=self.page_sizes, argsz=24 + len(chain))
        if room >= info.argsz:
            info.cap_offset = 24
            info.argsz = room
            buffer[24 : 24 + len(chain)] = chain
        buffer[:24] = info.pack()

    def _map(self, container: Container, wanted: vfio.vfio_iommu_type1_dma_map) -> None:
        # In the order of vfio_dma_do_map (drivers/vfio/vfio_iommu_type1.c).
        last = wanted.iova + wanted.size - 1
        granule = self.page_sizes & -self.page_sizes
        _refuse(
            errno.EINVAL, wanted.argsz < 32 or not wanted.flags & 3 or wanted.size == 0 or last >= 1 << 64
        )
        _refuse(errno.EINVAL, any(each % granule for each in (wanted.iova, wanted.vaddr, wanted.size)))
        _refuse(
            errno.EEXIST,
            any(iova <= last and wanted.iova < iova + size for iova, size in self._all(container)),
        )
        _refuse(errno.ENOSPC, len(container.mappings) >= self.entry_limit)
        _refuse(errno.EINVAL, not any(start <= wanted.iova and last <= end for start, end in self.ranges))
        locked = sum(container.mappings.values())
        _refuse(errno.ENOMEM, self.memlock is not None and locked + wanted.size > self.memlock)
        container.mappings[wanted.iova] = wanted.size

    def _unmap(self, container: Container, wanted: vfio.vfio_iommu_type1_dma_unmap) -> int:
        granule = self.page_sizes & -self.page_sizes
        if wanted.flags & vfio.VFIO_DMA_UNMAP_FLAG_ALL:
            _refuse(errno.EINVAL, wanted.iova != 0 or wanted.size != 0)
            wanted = vfio.vfio_iommu_type1_dma_unmap(size=1 << 63)
        _refuse(errno.EINVAL, bool(wanted.size == 0 or wanted.iova % granule or wanted.size % granule))
        end = wanted.iova + wanted.size
        hit = [
            (iova, size) for iova, size in self._all(container) if iova < end and wanted.iova < iova + size
        ]
        if container.iommu == vfio.VFIO_TYPE1v2_IOMMU:
            _refuse(errno.EINVAL, any(iova < wanted.iova or iova + size > end for iova, size in hit))
        else:
            hit = [(iova, size) for iova, size in hit if iova >= wanted.iova]
        for iova, _ in hit:
            del container.mappings[iova]
        return sum(size for _, size in hit)

    def _all(self, container: Container) -> list[tuple[int, int]]:
        return list(container.mappings.items())


def _refuse(number: int, condition: bool) -> None:
    if condition:
        raise OSError(number, os.strerror(number))
