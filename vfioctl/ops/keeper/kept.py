"""What a keeper keeps: a container, descriptors that were given to it, and what has happened to them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from vfioctl.errors import UsageError
from vfioctl.host import channel, memory
from vfioctl.host.holders import keep_under
from vfioctl.host.machine import Machine
from vfioctl.model import Snapshot
from vfioctl.ops.backends import Member
from vfioctl.ops.container import Container
from vfioctl.ops.keeper.requested import Requested
from vfioctl.ops.mappings import Run
from vfioctl.policy.refusals.facts import state_of
from vfioctl.policy.subjects import find_group
from vfioctl.policy.viability import is_vfio_bound, judge

#: Descriptors that are kept for clients at most: the vectors of some devices.
MOST_KEPT = 8192


class Settings(NamedTuple):
    """How a container is kept. ``charge``: whose limit of locked memory counts, ``user`` or ``process`` (None: as the
    kernel has it); ``release_on_request``: a group goes as soon as the host wants one of its devices back;
    ``vf_token``: what devices with SR-IOV are opened with."""

    charge: str | None = None
    release_on_request: bool = False
    vf_token: UUID | None = None


DEFAULTS = Settings()


class Kept:
    """The state of a keeper process. The methods raise VfioctlError."""

    def __init__(self, machine: Machine, wanted: str, settings: Settings = DEFAULTS) -> None:
        self.machine = machine
        self.vf_token = settings.vf_token
        self.container = Container(machine.dev, wanted, settings.charge)
        self.requested = Requested(self, release=settings.release_on_request)
        self.name: str | None = None
        self.path: str | None = None
        self.listener: socket.socket | None = None
        self._inode = 0
        self.ending = False
        self._kept: dict[str, int] = {}

    # --- groups and devices ----------------------------------------------------------------------

    def add(self, numbers: Sequence[int]) -> None:
        """Takes groups in, by their numbers."""
        snapshot = self.machine.snapshot()
        self.container.add([self._member(snapshot, number) for number in numbers])
        if self.container.space.opens_devices:
            try:
                for number in numbers:
                    for device in filter(is_vfio_bound, self.container.member(number).group.devices):
                        self.open_device(device.address)
            except BaseException:
                for number in numbers:
                    self.remove(number)
                raise

    def _member(self, snapshot: Snapshot, number: int) -> Member:
        group = find_group(snapshot, number)
        verdict = judge(group, snapshot.kernel)
        tokens = {
            device.address: self.vf_token
            for device in group.devices
            if self.vf_token is not None and self.machine.takes_vf_token(device.key)
        }
        return Member(group, state_of(verdict, snapshot.kernel, str(os.geteuid())), tokens)

    def remove(self, number: int) -> None:
        """Lets a group go."""
        for device in self.container.member(number).group.devices:
            self._let_go(device.address)
        self.container.remove(number)

    def open_device(self, name: str) -> int:
        """A descriptor of a device, whose request to be given back is listened to from then on."""
        is_new = name not in self.container.devices
        fd = self.container.open_device(name)
        if is_new:
            self.requested.watch(name, fd)
        return fd

    def _let_go(self, name: str) -> None:
        self.requested.forget(name)
        self.drop(f"irq/{name}/")

    # --- descriptors -----------------------------------------------------------------------------

    def keep(self, name: str, fd: int) -> None:
        """Keeps a descriptor under a name, in the place of an earlier one."""
        if len(self._kept) >= MOST_KEPT or not name or len(name) > 200:
            os.close(fd)
            raise UsageError(f"more than {MOST_KEPT} descriptors, or no name", code="malformed-request")
        if name in self._kept:
            os.close(self._kept[name])
        self._kept[name] = fd

    def found(self, prefix: str) -> dict[str, int]:
        """What is kept under names that begin so."""
        return {name: fd for name, fd in self._kept.items() if name.startswith(prefix)}

    def drop(self, prefix: str) -> int:
        """Closes what is kept under names that begin so; how many."""
        found = self.found(prefix)
        for name, fd in found.items():
            os.close(fd)
            del self._kept[name]
        return len(found)

    def descriptors(self) -> dict[str, int]:
        """All that a program needs to go on with the container: its own, the groups' and the devices'."""
        devices = {f"device-{name.replace(':', '_')}": fd for name, fd in self.container.devices.items()}
        backend = self.container.backend
        return {**(backend.descriptors() if backend else {}), **devices}

    # --- the record ------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """What ``container show`` shows."""
        container = self.container
        offer = container.backend.offer() if container.backend is not None else None
        locked = memory.memlock()
        return {
            "name": self.name,
            "pid": os.getpid(),
            "backend": container.backend.name if container.backend is not None else None,
            "groups": sorted(container.members),
            "devices": [
                {
                    "address": device.address,
                    "group": number,
                    "open": device.address in container.devices,
                    "gone": not self.machine.is_there(device.key),
                    "wanted_back": device.address in self.requested.wanted,
                }
                for number, member in container.members.items()
                for device in member.group.devices
                if is_vfio_bound(device)
            ],
            "mappings": [run_record(run) for run in container.mappings.runs],
            "page_sizes": offer.page_sizes if offer else None,
            "iova_ranges": offer.ranges if offer else None,
            "dma_avail": offer.entries if offer else None,
            "details": container.backend.details() if container.backend is not None else {},
            "accounting": container.backend.accounting if container.backend is not None else None,
            "locked": locked.locked,
            "memlock": None if locked.cap_ipc_lock else locked.limit,
            "release_on_request": self.requested.release,
            "kept": sorted(self._kept),
        }

    # --- the end ---------------------------------------------------------------------------------

    def publish(self, path: str, name: str) -> None:
        """Listens at ``path`` from now on."""
        if self.listener is not None:
            raise UsageError("the container has a name already", code="malformed-request")
        self.listener = channel.listen(path)
        self.path, self.name, self._inode = path, name, os.stat(path).st_ino
        keep_under(name)

    def close(self) -> None:
        """Lets everything go."""
        if self.listener is not None and self.path is not None:
            with suppress(OSError):  # somebody has removed it, and another container may have the name since
                if os.stat(self.path).st_ino == self._inode:
                    os.unlink(self.path)
            self.listener.close()
            self.listener = None
        self.drop("")
        self.requested.close()
        self.container.close()


def run_record(run: Run) -> list[Any]:
    """Mappings that follow one another, as they are told: ``chunk`` is None for a single one."""
    return [run.iova, run.size, run.prot, run.source, run.chunk if run.pieces > 1 else None]


def mapping_of(record: Sequence[Any]) -> dict[str, Any]:
    """What ``run_record`` told, by names."""
    return dict(zip(("iova", "size", "prot", "source", "chunk"), record, strict=True))


def from_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as other processes have it, with mappings as objects."""
    return {**record, "mappings": [mapping_of(each) for each in record["mappings"]]}
