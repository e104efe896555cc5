"""What no file tells, asked of the running host for a snapshot's record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping

from vfioctl import __version__
from vfioctl.host.extent.collect import Collected
from vfioctl.host.files import names
from vfioctl.host.holders import find_holders
from vfioctl.host.hwdb import HardwareDatabase
from vfioctl.host.ioctl import interface_address
from vfioctl.host.memory.allowance import of_caller
from vfioctl.host.names import below, carriers
from vfioctl.host.reader import stat_node
from vfioctl.host.recorded import Recorded
from vfioctl.host.usage import device_path
from vfioctl.host.usage.callers import ssh_connections
from vfioctl.host.usage.disks import is_claimed, is_idle
from vfioctl.host.usage.stack import read_stack
from vfioctl.model import Device


def ask(
    collected: Collected,
    devices: Iterable[Device],
    extensions: Mapping[str, bool | None] | None,
    api_version: int,
    timeout: float,
) -> Recorded:
    """The record. Processes are asked for ``timeout`` seconds at most; a disk that nothing is seen to use is opened for
    an instant, as for ``impact``."""
    devices = list(devices)
    keys = [device.key for device in devices]
    found = (stat_node(f"/{path}") for path in collected.entries if path.startswith("dev/"))
    return Recorded(
        version=__version__,
        euid=os.geteuid(),
        byteorder=sys.byteorder,
        time=int(time.time()),
        redacted=False,
        nodes={node.path: node for node in found if node is not None},
        holders=find_holders(keys, timeout),
        connections=ssh_connections(),
        addresses=_addresses(),
        claimed=frozenset(_claimed(keys) if os.geteuid() == 0 else ()),
        api_version=None if extensions is None else api_version,
        extensions=extensions or {},
        names=_names(devices),
        lock=of_caller(),
    )


def _addresses() -> dict[str, str]:
    asked = {name: interface_address(name) for name in names("/sys/class/net")}
    return {name: address for name, address in asked.items() if address is not None}


def _claimed(keys: Iterable[str]) -> list[str]:
    """The disks of the devices that nothing is seen to use, and that something has claimed."""
    stack = read_stack("/")
    tops = [os.path.realpath(device_path("/", key)) for key in keys]
    disks = [name for name in below(tops, carriers("/", "block")) if name not in stack.partitions]
    return [name for name in disks if is_idle(stack, name) and is_claimed(name)]


def _names(devices: Iterable[Device]) -> dict[str, dict[str, str]]:
    with HardwareDatabase() as database:
        asked = {device.modalias: database.look_up(device.modalias) for device in devices if device.modalias}
    return {
        modalias: {key: name for key, name in known.items() if key.endswith("_FROM_DATABASE")}
        for modalias, known in asked.items()
        if known
    }
