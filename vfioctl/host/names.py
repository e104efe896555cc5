"""Finds the device behind a network or block name."""

from __future__ import annotations

import os

from vfioctl.host.files import names


def devices_behind(root: str, name: str) -> list[str]:
    """Real sysfs paths of the devices that carry the network interface or block device ``name``; at most one each."""
    found = []
    for kind in ("net", "block"):
        if name in names(os.path.join(root, "sys/class", kind)):
            path = os.path.realpath(os.path.join(root, "sys/class", kind, name))
            if path not in found:
                found.append(path)
    return found
