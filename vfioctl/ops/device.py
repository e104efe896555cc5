"""A device that is open for a command: from a container that stays open, or one for this command only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.errors import NotFound
from vfioctl.host.machine import Machine
from vfioctl.model import Device
from vfioctl.ops.keeper import named, spawn
from vfioctl.ops.keeper.client import Client
from vfioctl.ops.steps import Tell


class OpenDevice(NamedTuple):
    """A device that is open: ``fd`` is this process's own copy of its descriptor. ``temporary``: it is open for this
    command only, and will be reset when it is closed."""

    name: str
    fd: int
    client: Client
    temporary: bool


@contextlib.contextmanager
def opened(
    machine: Machine,
    device: Device,
    container: str | None = None,
    *,
    backend: str = "auto",
    tell: Tell = lambda text: None,
) -> Iterator[OpenDevice]:
    """A device, opened in the container of that name, or in the caller's open container that has its group, or in one
    that is made for as long as the block runs. Raises VfioctlError."""
    if device.group is None:
        raise NotFound(
            f"{device.address} is in no IOMMU group",
            hint="it is not behind an IOMMU that is on: vfioctl doctor says why when there are none at all",
            subject=device.address,
            code="no-iommu-group",
        )
    name = container or named.holding(machine, device.group)
    if name is None:
        with spawn.temporary(machine, backend) as client:
            client.call("add", {"groups": [device.group]})
            tell(f"+ {device.address} is opened for this command, which resets it")
            with _descriptor(client, device.address) as fd:
                yield OpenDevice(device.address, fd, client, True)
        return
    with named.connected(machine, name) as client, _descriptor(client, device.address) as fd:
        yield OpenDevice(device.address, fd, client, False)


@contextlib.contextmanager
def _descriptor(client: Client, name: str) -> Iterator[int]:
    fd = client.open_device(name)
    try:
        yield fd
    finally:
        os.close(fd)
