"""Refusals of what a device's own files in sysfs are written, of any write, of nodes and of modules (floor 3, pure).

Source: drivers/pci/pci-sysfs.c and iov.c, drivers/vfio/mdev/mdev_sysfs.c and mdev_core.c, kmod's modprobe.
"""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, NotFound
from vfioctl.model import Look
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.drivers import vanished
from vfioctl.policy.refusals.words import Table, When, says

_NO_DRIVER = When(
    "it has no driver",
    lambda refusal: refusal.state.about is not None and refusal.state.about.driver is None,
)
_BY_VFIO = When(
    "it is bound to vfio-pci",
    lambda refusal: refusal.state.about is not None and refusal.state.about.driver == "vfio-pci",
)

REFUSALS: Table = {
    ("write sriov_numvfs", errno.EINVAL): says(
        "{data} is no number of virtual functions",
        code="kernel",
        hint="write a number from 0 to sriov_totalvfs",
    ),
    ("write sriov_numvfs", errno.ERANGE): says(
        "{device} cannot have that many virtual functions",
        code="kernel",
        hint="at most as many as {sysfs}/sriov_totalvfs says",
        look=evidence.TOTALVFS,
    ),
    ("write sriov_numvfs", errno.ENOENT): says(
        "{device} has no driver, and only its driver makes virtual functions or takes them away",
        code="no-driver",
        hint="bind its host driver: vfioctl unbind {DEVICE}; then try again",
        look=evidence.DRIVER,
        when=_NO_DRIVER,
    )
    + says(
        "vfio-pci makes no virtual functions of {device}",
        code="not-supported",
        hint="make them with the host driver bound (vfioctl unbind {DEVICE}), or let vfio-pci:"
        " echo Y > /sys/module/vfio_pci/parameters/enable_sriov",
        look=(Look("/sys/module/vfio_pci/parameters/enable_sriov"), *evidence.DRIVER),
        when=_BY_VFIO,
    )
    + says(
        "{its_driver} makes no virtual functions of {device}",
        code="not-supported",
        hint="another driver may, or the card has to be set up for them: look at its documentation",
        look=evidence.DRIVER,
    ),
    ("write sriov_numvfs", errno.EBUSY): says(
        "{device} has {numvfs}virtual functions already, and their number is not changed while there are any",
        code="virtual-functions",
        hint="take them away first: echo 0 > {sysfs}/sriov_numvfs",
        kind=Busy,
        look=evidence.NUMVFS,
    ),
    **{
        ("write sriov_numvfs", number): says(
            "the machine has no room for that many virtual functions of {device}: bus numbers, or addresses for their"
            " memory",
            code="no-room",
            hint="ask for fewer; pci=realloc or pci=assign-busses on the kernel's command line may make room",
        )
        for number in (errno.ENOMEM, errno.ENOSPC)
    },
    ("write sriov_numvfs", errno.EPERM): says(
        "{device} may not have virtual functions: its firmware or its driver does not let them be made",
        code="not-supported",
        hint="switch SR-IOV on in the setup of the machine and of the card; or run it as root with all capabilities",
        look=evidence.DRIVER,
    ),
    ("write reset", errno.EINVAL): says(
        "a reset is asked for by writing 1", code="kernel", hint="echo 1 > {sysfs}/reset"
    ),
    ("write reset", errno.ENOTTY): says(
        "{device} has no method left to be reset by",
        code="no-reset",
        hint="look at its reset_method in sysfs: writing 'default' there brings the methods back",
        look=evidence.RESET_METHOD,
    ),
    ("write reset", errno.ENOENT): says(
        "{device} has no way to be reset by itself",
        code="no-reset",
        hint="a reset of its slot or bus may be possible, with every device that shares it",
    ),
    ("write reset", errno.EAGAIN): says(
        "{device} is locked: it is being reset or bound right now", code="busy", hint="try again", kind=Busy
    ),
    ("write reset_method", errno.EINVAL): says(
        "{device} cannot be reset by that method",
        code="no-reset",
        hint="writing 'default' brings all back that it has; then read the file",
        look=evidence.RESET_METHOD,
    ),
    ("write remove", errno.ENODEV): vanished,
    ("write remove", errno.ENOENT): vanished,
    ("write remove", errno.EAGAIN): says(
        "{device} is still being made", code="busy", hint="try again", kind=Busy
    ),
    ("write create", errno.EINVAL): says(
        "{data} is no UUID, or the parent's driver refuses such a mediated device",
        code="kernel",
        hint="give a UUID of 36 characters (uuidgen); the kernel log may say more",
    ),
    ("write create", errno.EEXIST): says(
        "there is a mediated device {data} already",
        code="kernel",
        hint="give another UUID (uuidgen); ls /sys/bus/mdev/devices shows them",
    ),
    **{
        ("write create", number): says(
            "no more mediated devices of this type can be made",
            code="no-room",
            hint="available_instances beside it says how many can: remove one first",
            look=(Look("/sys/class/mdev_bus/*/mdev_supported_types/*/available_instances"),),
        )
        for number in (errno.EUSERS, errno.ENOSPC)
    },
    ("write create", errno.ENODEV): says(
        "the parent of the mediated device is just leaving",
        code="no-such-device",
        hint="ls /sys/class/mdev_bus shows what is there",
        kind=NotFound,
    ),
}
