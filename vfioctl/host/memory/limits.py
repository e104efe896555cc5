"""What may be had and locked of memory: the limit of locked memory, what is free, the pools of huge pages."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import NamedTuple

from vfioctl.host.files import names, read

#: Bit of CAP_IPC_LOCK in the capability masks (include/uapi/linux/capability.h).
CAP_IPC_LOCK = 14


class Memlock(NamedTuple):
    """What this process may pin: bytes; ``limit`` None means unlimited.

    ``cap_ipc_lock`` is the capability as the kernel counts it: held in the initial user namespace.
    """

    limit: int | None
    locked: int
    cap_ipc_lock: bool

    def allows(self, size: int) -> bool:
        """Whether ``size`` more bytes stay below the limit, going by what is known now."""
        return self.cap_ipc_lock or self.limit is None or self.locked + size <= self.limit


class HugePages(NamedTuple):
    """The pool of one size of huge pages, counted in pages: how many there are, how many of them are free and not
    promised to anybody yet, and how many the kernel may add on demand (overcommit)."""

    total: int
    free: int
    more: int


def memlock(proc: str = "/proc/self") -> Memlock:
    """This process's limit of locked memory and what is charged to it (VmLck and CapEff of its status)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    fields = _status(proc)
    capable = bool(int(fields.get("CapEff", "0"), 16) >> CAP_IPC_LOCK & 1)
    return Memlock(
        limit=None if soft == resource.RLIM_INFINITY else soft,
        locked=_bytes(fields.get("VmLck")),
        cap_ipc_lock=capable and _in_initial_user_namespace(proc),
    )


class Charged(NamedTuple):
    """The bytes that are charged to a process of user ``uid`` as locked (VmLck: what mlock and VFIO's containers lock)
    and as pinned (VmPin: what iommufd pins for its user)."""

    uid: int
    locked: int
    pinned: int


def charged(pid: int, proc: str = "/proc") -> Charged:
    """What is charged to a process. Raises ProcessLookupError when it is gone."""
    fields = _status(f"{proc}/{pid}")
    return Charged(int(fields["Uid"].split()[0]), _bytes(fields.get("VmLck")), _bytes(fields.get("VmPin")))


def pinned_by(uid: int, proc: str = "/proc") -> int:
    """The bytes that all processes of a user have pinned (VmPin), as far as they can be seen. iommufd counts them
    against the limit of whoever pins more (drivers/iommu/iommufd/pages.c, update_mm_locked_vm and
    incr_user_locked_vm); what others pin, io_uring for one, counts there too."""
    total = 0
    for name in filter(str.isdecimal, names(proc)):
        with suppress(OSError):
            found = charged(int(name), proc)
            total += found.pinned if found.uid == uid else 0
    return total


def _status(process: str) -> dict[str, str]:
    text = read(f"{process}/status")
    if text is None:
        raise ProcessLookupError(process)
    return dict(line.split(":", 1) for line in text.split("\n") if ":" in line)


def _bytes(field: str | None) -> int:
    return int((field or "0 kB").split()[0]) * 1024


def _in_initial_user_namespace(proc: str) -> bool:
    # The initial namespace maps all 2^32 - 1 user ids onto themselves, and a container rarely does.
    try:
        with open(f"{proc}/uid_map", encoding="ascii") as file:
            return file.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True


def available(meminfo: str = "/proc/meminfo") -> int | None:
    """Bytes that can be had without pushing anybody out (MemAvailable); None when not told."""
    with suppress(OSError), open(meminfo, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def hugepages(root: str = "/") -> dict[int, HugePages]:
    """The pools of huge pages by page size in bytes; empty where the kernel has none of any size.

    Source: Documentation/admin-guide/mm/hugetlbpage.rst.
    """
    top = f"{root.rstrip('/')}/sys/kernel/mm/hugepages"
    pools = {}
    for name in names(top):
        size = name.removeprefix("hugepages-").removesuffix("kB")
        if not size.isdecimal():
            continue
        total, free, promised, surplus, over = (
            int(read(f"{top}/{name}/{each}_hugepages") or 0)
            for each in ("nr", "free", "resv", "surplus", "nr_overcommit")
        )
        pools[int(size) << 10] = HugePages(total, max(0, free - promised), max(0, over - surplus))
    return pools
