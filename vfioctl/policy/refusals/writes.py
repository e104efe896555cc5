"""Refusals of any write to sysfs, of owners and modes of nodes, and of modules (floor 3, pure)."""

from __future__ import annotations

import errno

from vfioctl.errors import NotFound, PermissionDenied
from vfioctl.model import Look
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.words import Table, says

REFUSALS: Table = {
    ("write to sysfs", errno.EACCES): says(
        "{path} may not be written",
        code="permission",
        hint="run it as root; in a container /sys may be read-only",
        kind=PermissionDenied,
        look=evidence.NODE,
    ),
    ("write to sysfs", errno.EPERM): says(
        "{path} may not be written, whatever its mode says",
        code="permission",
        hint="run it as root with all capabilities; a security module or the kernel's lockdown may refuse it all the"
        " same (cat /sys/kernel/security/lockdown)",
        kind=PermissionDenied,
        look=evidence.NODE,
    ),
    ("write to sysfs", errno.EROFS): says(
        "{path} is on a file system that is read-only here",
        code="permission",
        hint="run it outside of the container, or give it a /sys that can be written",
        kind=PermissionDenied,
        look=(Look("/proc/self/mounts", "^sysfs "),),
    ),
    ("set access", errno.EPERM): says(
        "owner and mode of {path} may not be changed",
        code="permission",
        hint="run it as root; in a container it takes the capabilities CAP_CHOWN and CAP_FOWNER",
        kind=PermissionDenied,
        look=evidence.NODE,
    ),
    ("set access", errno.EACCES): says(
        "{path} cannot be reached",
        code="permission",
        hint="run it as root: a directory above it is closed",
        kind=PermissionDenied,
    ),
    ("set access", errno.EROFS): says(
        "{path} is on a file system that is read-only here",
        code="permission",
        hint="run it outside of the container, whose /dev cannot be changed",
        kind=PermissionDenied,
    ),
    ("set access", errno.ENOENT): says(
        "{path} is not there any more",
        code="not-found",
        hint="its device has just left its VFIO driver: vfioctl list-groups shows the nodes there are",
        kind=NotFound,
    ),
    ("set access", errno.EOPNOTSUPP): says(
        "the file system of {path} has no access control lists",
        code="not-supported",
        hint="use an owner or a group: --user, --group-owner, --mode; or a kernel with CONFIG_TMPFS_POSIX_ACL",
    ),
    ("set access", errno.EINVAL): says(
        "{path} does not take that owner, mode or list",
        code="kernel",
        hint="see whether user and group exist: id NAME",
    ),
    ("load module", errno.ENOENT): says(
        "module {DRIVER} cannot be loaded: {said}",
        code="no-module",
        hint="modinfo {DRIVER} says whether this kernel has it; a kernel that was updated while it runs has other"
        " modules on the disk (uname -r, ls /lib/modules): boot it",
    ),
    ("load module", errno.EPERM): says(
        "module {DRIVER} cannot be loaded: {said}",
        code="no-module",
        hint="run it as root, outside of a container; modules may have been switched off until the next boot"
        " (cat /proc/sys/kernel/modules_disabled), or lockdown takes signed ones only",
        look=(Look("/proc/sys/kernel/modules_disabled"), Look("/sys/kernel/security/lockdown")),
    ),
    ("load module", errno.EINVAL): says(
        "module {DRIVER} cannot be loaded: {said}",
        code="no-module",
        hint="it does not take a parameter that it is given: modprobe --showconfig | grep {DRIVER}, and the kernel log"
        " (dmesg)",
    ),
    ("load module", errno.ENODEV): says(
        "module {DRIVER} cannot be loaded: {said}",
        code="no-module",
        hint="this machine has not what it drives; the kernel log (dmesg) may say more",
    ),
    ("load module", errno.ENOEXEC): says(
        "module {DRIVER} cannot be loaded: {said}",
        code="no-module",
        hint="it was built for another kernel: modinfo {DRIVER} shows its vermagic, uname -r the kernel",
    ),
    **{
        ("load module", number): says(
            "module {DRIVER} cannot be loaded: {said}",
            code="no-module",
            hint="it is not signed with a key that this kernel trusts (Secure Boot): sign it, or enrol its key"
            " (mokutil)",
        )
        for number in (errno.EKEYREJECTED, errno.ENOKEY)
    },
    ("load module", errno.ENOMEM): says(
        "module {DRIVER} cannot be loaded: {said}", code="no-memory", hint="free memory, then try again"
    ),
}

#: A write that has no words of its own.
UNKNOWN = says(
    "the kernel refused to write {data} to {path}: {strerror}",
    code="kernel",
    hint="the kernel log may say more (dmesg){or_plain}",
)

UNKNOWN_ACCESS = says(
    "owner and mode of {path} could not be changed: {strerror}",
    code="kernel",
    hint="the kernel log may say more (dmesg)",
)
