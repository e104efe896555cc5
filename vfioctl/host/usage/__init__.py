"""What the host uses devices for: what it would lose with them, and which other tools claim them.

All from sysfs, procfs, udev's database and the files of those tools, so that a tree of files (``--root``) is judged
too; what only the running host can tell is asked when the root is "/", and a snapshot has it recorded.

procfs escapes blanks and line feeds in names and nothing else, so that lines end at a line feed only: str.splitlines
would end them at a carriage return or U+2028 in a mount point too, and miss the mount.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from vfioctl.host.holders import Found, find_holders
from vfioctl.host.names import below, carriers
from vfioctl.host.recorded import holders_of, recorded
from vfioctl.host.usage.claims import Claims
from vfioctl.host.usage.disks import disk_uses
from vfioctl.host.usage.display import Display
from vfioctl.host.usage.functions import function_uses, functions_of
from vfioctl.host.usage.held import Held
from vfioctl.host.usage.keyboards import keyboard_uses
from vfioctl.host.usage.network import Network
from vfioctl.host.usage.stack import read_stack
from vfioctl.model import Use


def uses_of(root: str, keys: Sequence[str], timeout: float = 10.0) -> dict[str, tuple[Use, ...]]:
    """The uses of the devices ``keys`` (``bus/address``), judged as if all of them left the host together, by key.

    What is built on a device's disks and interfaces counts as its use, and so does what its virtual functions and the
    devices of a PCI domain behind it carry. Processes are asked for ``timeout`` seconds at most.
    """
    tops = {key: os.path.realpath(device_path(root, key)) for key in keys}
    whole = {key: (top, *functions_of(top)) for key, top in tops.items()}
    blocks, interfaces = carriers(root, "block"), carriers(root, "net")
    stack, network = read_stack(root), Network(root)
    display, claims = Display(root), Claims(root)
    keyboards = keyboard_uses(root, whole)
    held = Held(_holders(root, keys, timeout))
    return {
        key: tuple(
            dict.fromkeys(
                (
                    *function_uses(top),
                    *disk_uses(root, stack, below(whole[key], blocks)),
                    *network.uses(whole[key], below(whole[key], interfaces)),
                    *display.uses(top),
                    *keyboards.get(key, ()),
                    *held.uses(key),
                    *claims.uses(key),
                )
            )
        )
        for key, top in tops.items()
    }


def _holders(root: str, keys: Sequence[str], timeout: float) -> Found:
    if root == "/":
        return find_holders(keys, timeout)
    record = recorded(root)
    return Found() if record is None else holders_of(record, keys)


def device_path(root: str, key: str) -> str:
    """Where sysfs links to the device ``bus/address``."""
    bus, _, address = key.partition("/")
    return os.path.join(root, "sys/bus", bus, "devices", address)
