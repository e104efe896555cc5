"""One look at all processes, for any number of devices.

Open files first, then mappings: an mmap holds a device whose file is closed long since, but /proc/PID/maps takes a lock
of the process and may keep one waiting."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import visible
from vfioctl.host.files import names, read
from vfioctl.host.holders.cgroup import membership
from vfioctl.host.holders.holder import VFIO_KINDS, Found, Holder
from vfioctl.host.holders.nodes import DeviceNode, Owners, nodes_of, suspects
from vfioctl.host.survey import patience_in, survey

_DEVICE = "anon_inode:[vfio-device]"
_SYSPATH = "vfio-device-syspath: "  # Linux 6.18 and newer, in fdinfo
#: PF_KTHREAD of include/linux/sched.h, in the ninth field of /proc/PID/stat.
_KERNEL_THREAD = 0x00200000


class _Seen(NamedTuple):
    """What a process holds: nodes by (is a block device, st_rdev), and VFIO devices by their directory in sysfs, or ""
    where the kernel does not say."""

    nodes: list[tuple[bool, int]]
    devices: list[str]


class _Hold(NamedTuple):
    pid: int
    key: str
    node: str | None
    kind: str
    certain: bool = True


def find_holders(keys: Iterable[str], timeout: float, root: str = "/") -> Found:
    """Who holds the devices (``bus/address``). A process that cannot be asked within ``timeout`` (seconds for all)
    counts as unseen."""
    keys = list(keys)
    return scan(nodes_of(root, keys, timeout), timeout, Owners(root, keys), suspects(root))


def holders_of_node(path: str, timeout: float = 10.0) -> list[Holder]:
    """Who has one node open or mapped."""
    nodes = [DeviceNode(path, "vfio", number, is_block) for is_block, number in _number(path)]
    return list(scan({path: nodes}, timeout).holders)


def scan(
    nodes: Mapping[str, Sequence[DeviceNode]],
    timeout: float,
    owners: Owners | None = None,
    possible: Sequence[str] = (),
) -> Found:
    """The processes that hold one of the ``nodes`` (by device), or a VFIO device below the directories of ``owners``;
    ``possible`` are the directories of all devices that a VFIO device file could be of."""
    pids = _processes()
    opened, silent = survey(_opened, pids, patience_in(timeout), timeout)
    mapped, stuck = survey(
        _mapped, [pid for pid, seen in opened if seen is not None], patience_in(timeout), timeout
    )
    unseen = {*silent, *stuck, *(pid for pid, seen in opened if seen is None)}
    wanted: dict[tuple[bool, int], list[tuple[str, DeviceNode]]] = {}
    for key, of_it in nodes.items():
        for node in of_it:
            wanted.setdefault((node.is_block, node.number), []).append((key, node))
    seen = {pid: _Seen(*answer) for pid, answer in opened if answer is not None}
    for pid, (numbers, has_device) in mapped:
        seen[pid].nodes.extend(numbers)
        if has_device and not seen[pid].devices:
            seen[pid].devices.append("")
    holds: list[_Hold] = []
    for pid, held in seen.items():
        by_node = [
            _Hold(pid, key, node.path, node.kind)
            for number in dict.fromkeys(held.nodes)
            for key, node in wanted.get(number, ())
        ]
        holds += by_node
        if owners is not None:
            through = {hold.key for hold in by_node if hold.kind in VFIO_KINDS}
            holds += _devices(pid, held.devices, owners, possible, through)
    known = {hold.key for hold in holds if hold.certain and hold.kind in VFIO_KINDS}
    described = _described([hold for hold in holds if hold.certain or hold.key not in known], timeout)
    order = sorted(described, key=lambda holder: (holder.key, holder.pid or 0, holder.node or ""))
    return Found(tuple(order), len(unseen) if os.path.exists("/proc/1") else None)


def _devices(
    pid: int, devices: Sequence[str], owners: Owners, possible: Sequence[str], through: Collection[str]
) -> Iterator[_Hold]:
    """The holds by VFIO device files. Where the kernel does not say of which device one is, it is of the only one that
    there is, or else perhaps of any; but not beside a hold ``through`` a node of the device."""
    for path in dict.fromkeys(devices):
        if path:
            yield from (
                _Hold(pid, key, None, "vfio-device") for key in owners.of(owners.at(path.lstrip("/")))
            )
            continue
        for directory in possible:
            for key in owners.of(directory):
                if key not in through:
                    yield _Hold(pid, key, None, "vfio-device", len(possible) == 1)


def _processes() -> list[int]:
    """All processes but this one."""
    return [int(name) for name in names("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _opened(pid: int) -> tuple[list[tuple[bool, int]], list[str]] | None:
    """What a process has open, as the parts of a _Seen; None when that may not be seen."""
    nodes = set()
    devices = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if link.startswith("/dev/"):
                    nodes |= _number(f"/proc/{pid}/fd/{fd}")
                elif link == _DEVICE:
                    lines = (read(f"/proc/{pid}/fdinfo/{fd}") or "").split("\n")
                    paths = [line.removeprefix(_SYSPATH) for line in lines if line.startswith(_SYSPATH)]
                    devices.append(paths[0].strip() if paths else "")
    except PermissionError:
        return None if _is_ordinary(pid) else ([], [])
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return [], []
    return list(nodes), devices


def _mapped(pid: int) -> tuple[list[tuple[bool, int]], bool]:
    """The nodes that a process has mapped, and whether it has mapped a VFIO device."""
    text = ""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        text = read(f"/proc/{pid}/maps") or ""
    nodes = set()
    if "/dev/" in text:
        paths = {line.split(None, 5)[5] for line in text.split("\n") if "/dev/" in line}
        for path in paths:
            if path.startswith("/dev/"):
                nodes |= _number(f"/proc/{pid}/root{path.removesuffix(' (deleted)')}")
    return list(nodes), _DEVICE in text


def _number(path: str) -> set[tuple[bool, int]]:
    """What device node ``path`` is: none, or the one element."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return {(stat.S_ISBLK(status.st_mode), status.st_rdev)}
    return set()


def _is_ordinary(pid: int) -> bool:
    """Not a thread of the kernel, nor a process that has ended."""
    with contextlib.suppress(ProcessLookupError):
        fields = (read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        return len(fields) > 6 and fields[0] not in "ZX" and not int(fields[6]) & _KERNEL_THREAD
    return False


def _described(holds: Sequence[_Hold], timeout: float) -> Iterator[Holder]:
    """The holders, without those that have ended since."""
    about = dict(survey(_process, sorted({hold.pid for hold in holds}), patience_in(timeout), timeout)[0])
    # May ask a directory on the network.
    uids = {answer[1] for answer in about.values() if answer is not None}
    users = dict(survey(_user, sorted(uids), patience_in(timeout), timeout)[0])
    for hold in holds:
        answer = about.get(hold.pid, ("?", -1, ""))
        if answer is not None:
            command, uid, text = answer
            unit, container = membership(text)
            bus, _, address = hold.key.partition("/")
            yield Holder(
                pid=hold.pid,
                command=visible(command),
                uid=uid,
                certain=hold.certain,
                user=users.get(uid),
                unit=unit and visible(unit),
                container=container and visible(container),
                bus=bus,
                address=address,
                node=hold.node and visible(hold.node),
                kind=hold.kind,
            )


def _process(pid: int) -> tuple[str, int, str] | None:
    """Command, effective uid, and the text of /proc/PID/cgroup; None when the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        lines = [line.split() for line in (read(f"/proc/{pid}/status") or "").split("\n")]
        status = {words[0]: words[1:] for words in lines if words}
        if status.get("State:", ["Z"])[0] not in "ZX":
            return read(f"/proc/{pid}/comm") or "?", int(status["Uid:"][1]), read(f"/proc/{pid}/cgroup") or ""
    return None


def _user(uid: int) -> str | None:
    import pwd

    try:
        return visible(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return None
