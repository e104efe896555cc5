"""Network interfaces that are up with addresses: they hold a device without any process."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vfioctl.host.holders.holder import Holder
from vfioctl.host.names import below, carriers
from vfioctl.host.usage.network import Network


def interfaces_up(root: str, keys: Sequence[str]) -> list[Holder]:
    """The interfaces of the devices (``bus/address``), and those stacked on them, that are up and have an address."""
    network, carried = Network(root), carriers(root, "net")
    found = []
    for key in keys:
        bus, _, address = key.partition("/")
        top = os.path.realpath(os.path.join(root, "sys/bus", bus, "devices", address))
        for use in network.uses([top], below([top], carried)):
            if use.guard == "address":
                found.append(
                    Holder(None, None, None, bus=bus, address=address, kind="net", what=use.evidence)
                )
    return found
