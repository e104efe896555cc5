"""Which devices carry a network interface or a block device, and the other way round."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from vfioctl.host.files import names, read

KINDS = ("net", "block")


def devices_behind(root: str, name: str, kinds: tuple[str, ...] = KINDS) -> list[str]:
    """Real sysfs paths below the devices that carry the network interface or block device ``name``.

    An NVMe disk of a kernel with native multipath is not below its controller but below its subsystem, which links
    to each of its controllers.
    """
    found = []
    for kind in kinds:
        link = os.path.join(root, "sys/class", kind, name)
        if not os.path.lexists(link):
            continue
        path = os.path.realpath(link)
        above, virtual, below = path.partition("/nvme-subsystem/")
        if virtual:
            subsystem = above + virtual + below.partition("/")[0]
            links = (os.path.join(subsystem, entry) for entry in names(subsystem))
            found += [
                os.path.realpath(link) for link in links if os.path.islink(link) and _is_controller(link)
            ]
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def carriers(root: str, kind: str) -> dict[str, list[str]]:
    """Every name under /sys/class/``kind`` (net, block) with the real sysfs paths of :func:`devices_behind`."""
    top = os.path.join(root, "sys/class", kind)
    return {
        name: devices_behind(root, name, (kind,))
        for name in names(top)
        # A hidden block device is a path of an NVMe disk, not a disk of its own.
        if read(os.path.join(top, name, "hidden")) != "1"
    }


def below(tops: Iterable[str], paths: Mapping[str, Iterable[str]]) -> list[str]:
    """The names among ``paths`` (see :func:`carriers`) that are carried by a device with one of the real sysfs paths
    ``tops``."""
    starts = tuple(f"{top}/" for top in tops)
    return [name for name, found in paths.items() if any(path.startswith(starts) for path in found)]


def carried_by(root: str, device: str, kind: str) -> list[str]:
    """The names under /sys/class/``kind`` (net, block) that the device with the sysfs path ``device`` carries."""
    return below([os.path.realpath(device)], carriers(root, kind))


def _is_controller(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith("nvme") and name[4:].isdecimal()
