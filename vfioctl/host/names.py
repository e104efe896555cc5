"""Which devices carry a network interface or a block device, and the other way round."""

from __future__ import annotations

import os

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


def carried_by(root: str, device: str, kind: str) -> list[str]:
    """The names under /sys/class/``kind`` (net, block) that the device with the sysfs path ``device`` carries."""
    top = os.path.realpath(device) + "/"
    return [
        name
        for name in names(os.path.join(root, "sys/class", kind))
        # A hidden block device is a path of an NVMe disk, not a disk of its own.
        if read(os.path.join(root, "sys/class", kind, name, "hidden")) != "1"
        and any(path.startswith(top) for path in devices_behind(root, name, (kind,)))
    ]


def _is_controller(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith("nvme") and name[4:].isdecimal()
