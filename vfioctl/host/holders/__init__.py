"""Which processes hold a device, from /proc; what other users' processes hold only root can see."""

from vfioctl.host.holders.holder import (
    VFIO_KINDS,
    Found,
    Holder,
    being_changed,
    being_unbound,
    details,
    how_to_end,
    keep_under,
)
from vfioctl.host.holders.nodes import DeviceNode, nodes_of
from vfioctl.host.holders.processes import find_holders, holders_of_node, scan

__all__ = [
    "VFIO_KINDS", "DeviceNode", "Found", "Holder", "being_changed", "being_unbound", "details",
    "find_holders", "holders_of_node", "how_to_end", "keep_under", "nodes_of", "scan",
]  # fmt: skip
