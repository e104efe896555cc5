"""Whether enough memory may be locked, and of the pools of huge pages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vfioctl.model import Evidence, LockLimit
from vfioctl.policy.doctor.findings import CMDLINE, Case, Check, Finding, Severity
from vfioctl.policy.doctor.options import is_on
from vfioctl.policy.sizes import format_size, parse_size

#: What is judged against where nobody says how much is to be pinned: below it not even user space drivers get their
#: buffers (SPDK's setup.sh and the kernel's VFIO tests warn there). A virtual machine needs all of its memory.
DEFAULT = 64 << 20
_POOL = re.compile(r"/sys/kernel/mm/hugepages/hugepages-(\d+)kB/nr_hugepages")
_DISABLED = "/sys/module/vfio_iommu_type1/parameters/disable_hugepages"


def checks(case: Case) -> Iterator[Check]:
    """Locked memory, huge pages."""
    yield _memlock(case)
    yield _huge_pages(case)


def _memlock(case: Case) -> Check:
    lock = case.lock
    if isinstance(lock, str):
        return Check("memlock", None, lock, known=False)
    wanted = case.memory or DEFAULT
    if lock.exempt:
        return Check("memlock", lock.who, f"{lock.who} is root, or has CAP_IPC_LOCK: no limit counts")
    if lock.soft is None:
        return Check("memlock", lock.who, f"{lock.who} may lock any amount ({lock.path}: {lock.value})")
    left = max(0, lock.soft - lock.charged)
    taken = f", and {format_size(lock.charged)} of it is taken" if lock.charged else ""
    detail = f"{lock.who} may lock {format_size(lock.soft)} in all{taken}; wanted: {format_size(wanted)}"
    if wanted <= left:
        return Check("memlock", lock.who, detail)
    severity = Severity.ERROR if case.memory is not None else Severity.WARNING
    finding = Finding(
        "memlock-too-small",
        severity,
        lock.who,
        detail,
        (Evidence(lock.path, lock.value),),
        _cure(lock, lock.charged + wanted),
    )
    return Check("memlock", lock.who, detail, (finding,))


def _cure(lock: LockLimit, size: int) -> str:
    kind, _, name = lock.who.partition(" ")
    kib = -(-size // 1024)
    if kind == "uid" and (lock.hard is None or size <= lock.hard):
        return f"ulimit -l {kib}"
    if kind == "unit":
        drop_in = f"/etc/systemd/system/{name}.d/memlock.conf"
        return (
            f"write [Service] and LimitMEMLOCK={size} (or infinity) as two lines into {drop_in}, then: "
            f"systemctl daemon-reload; systemctl restart {name}"
        )
    if kind == "process":
        return f"prlimit --pid {name} --memlock={size}:{size}"
    domain = f":{name}" if kind == "uid" else name
    line = (
        f"as root: echo '{domain} - memlock {kib}' >> /etc/security/limits.d/zz-vfio.conf; then log in again"
    )
    return line if kind == "uid" else f"{line}, or let vfioctl run raise it for a command"


def _huge_pages(case: Case) -> Check:
    pools = {}
    for path, text in case.readings.texts.items():
        match = _POOL.fullmatch(path)
        if match is not None and isinstance(text, str) and text.isdecimal():
            free = case.readings.text(path.replace("nr_", "free_")) or "?"
            pools[int(match[1]) << 10] = (int(text), free, path)
    seen = [
        f"{format_size(size)}: {free} of {total} free" for size, (total, free, _) in sorted(pools.items())
    ]
    found = [
        Finding(
            "huge-pages-fewer",
            Severity.WARNING,
            format_size(size),
            f"{number} huge pages of {format_size(size)} were asked for at boot, and there are {pools[size][0]}",
            (Evidence(CMDLINE, word), Evidence(pools[size][2], str(pools[size][0]))),
            "ask for fewer, or give the host more memory: they are found at boot, or not at all",
        )
        for size, number, word in _asked(case)
        if size in pools and pools[size][0] < number
    ]
    if is_on(case.readings.text(_DISABLED)):
        found.append(
            Finding(
                "huge-pages-disabled",
                Severity.WARNING,
                "vfio_iommu_type1",
                "disable_hugepages is on: every page of 4 KiB is mapped on its own, which is slow and takes memory",
                case.said(_DISABLED),
                f"echo N > {_DISABLED}",
            )
        )
    return Check("huge-pages", None, "; ".join(seen) or "this kernel has none", tuple(found))


def _asked(case: Case) -> Iterator[tuple[int, int, str]]:
    """(size, number, word) of ``hugepages=`` of the command line, which is of the size before it or of the default
    (Linux, Documentation/admin-guide/mm/hugetlbpage.rst)."""
    words = [word.partition("=") for word in case.platform.cmdline.split()]
    sizes = {name: value for name, _, value in words if name == "default_hugepagesz"}
    size = _size(sizes.get("default_hugepagesz", "2M" if case.platform.machine == "x86_64" else ""))
    for name, _, value in words:
        if name == "hugepagesz":
            size = _size(value)
        elif name == "hugepages" and size is not None and value.isdecimal() and len(value) < 16:
            yield size, int(value), f"hugepages={value}"


def _size(text: str) -> int | None:
    return parse_size(text) if re.fullmatch(r"0*[1-9]\d{0,9}[KMG]", text.upper(), re.ASCII) else None
