"""Which devices carry a network interface or a block device, and the other way round."""

from __future__ import annotations

import os

from vfioctl.host.files import names


def devices_behind(root: str, name: str) -> list[str]:
    """Real sysfs paths below the devices that carry the network interface or block device ``name``.

    An NVMe disk of a kernel with native multipath is not below its controller but below its subsystem, which links
    to each of its controllers.
    """
    found = []
    for kind in ("net", "block"):
        if name in names(os.path.join(root, "sys/class", kind)):
            path = os.path.realpath(os.path.join(root, "sys/class", kind, name))
            above, subsystem = os.path.split(os.path.dirname(path))
            if kind == "block" and os.path.basename(above) == "nvme-subsystem":
                controllers = [
                    os.path.join(above, subsystem, n) for n in names(os.path.join(above, subsystem))
                ]
                found += [os.path.realpath(c) for c in controllers if os.path.islink(c) and _is_controller(c)]
            else:
                found.append(path)
    return list(dict.fromkeys(found))


def carried_by(root: str, device: str, kind: str) -> list[str]:
    """The names under /sys/class/``kind`` (net, block) that the device with the sysfs path ``device`` carries."""
    top = os.path.realpath(device) + "/"
    return [
        name
        for name in names(os.path.join(root, "sys/class", kind))
        if any(path.startswith(top) for path in devices_behind(root, name))
    ]


def _is_controller(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith("nvme") and name[4:].isdecimal()
