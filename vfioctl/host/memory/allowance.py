"""Whose limit of locked memory counts: the caller's, a process's, a user's after a login, a service's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from vfioctl.errors import NotFound
from vfioctl.host.files import link_name, read
from vfioctl.host.memory.limits import memlock
from vfioctl.host.readings import files_of, read_text
from vfioctl.model import LockLimit, Login

#: Of one name the file of the first directory counts (systemd, man/systemd.unit.xml).
_UNITS = tuple(
    f"{top}/{name}"
    for top, name in (
        ("/run/systemd", "transient"), ("/etc/systemd", "system"), ("/run/systemd", "system"),
        ("/run/systemd", "generator"), ("/usr/local/lib/systemd", "system"), ("/usr/lib/systemd", "system"),
        ("/lib/systemd", "system"), ("/run/systemd", "generator.late"),
    )
)  # fmt: skip
_CONFIGURATION = (
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
    "/lib/systemd",
)
_LIMITS = "/etc/security/limits"


def of_caller() -> LockLimit:
    """The limit of this process, which its children inherit."""
    return _of("/", "self", f"uid {os.geteuid()}")


def of_process(root: str, pid: int) -> LockLimit:
    """The limit of a process and what is charged to it. Raises NotFound, and PermissionError for another user's."""
    try:
        return _of(root, str(pid), f"process {pid}")
    except ProcessLookupError:
        raise NotFound(
            f"there is no process {pid}",
            subject=str(pid),
            code="no-such-process",
            hint="ps -e shows those there are",
        ) from None


def login_of(root: str, user: str) -> Login:
    """A user by name or number. Raises NotFound. Below a root other than "/" by its /etc/passwd and /etc/group."""
    found = _known(user) if root == "/" else _in_files(root, user)
    if found is None:
        raise NotFound(
            f"there is no user {user!r}",
            subject=user,
            code="no-such-user",
            hint="getent passwd lists those there are",
        )
    return found


def limits_files(root: str) -> list[str]:
    """The files of pam_limits, in the order in which it reads them."""
    return [f"{_LIMITS}.conf", *files_of(root, [f"{_LIMITS}.d"], ".conf")]


def unit_files(root: str, unit: str) -> list[str]:
    """The file of a service and its drop-ins, in the order in which systemd reads them. Raises NotFound.

    Those for all services and for a prefix of the name (``foo-.service.d``) are among them.
    """
    before, at, _ = unit.partition("@")
    called = [unit, f"{before}@.service"] if at else [unit]
    fragments = [f"{top}/{name}" for name in called for top in _UNITS]
    fragment = next((path for path in fragments if os.path.lexists(_below(root, path))), None)
    if fragment is None:
        raise NotFound(
            f"systemd has no file for the unit {unit}",
            subject=unit,
            code="no-such-unit",
            hint="systemctl list-unit-files lists those there are",
        )
    target = link_name(_below(root, fragment)) or ""
    if target == "null":
        raise NotFound(
            f"the unit {unit} is masked", subject=unit, code="no-such-unit", hint=f"systemctl unmask {unit}"
        )
    if target.endswith(".service") and target not in called:  # by another name
        called.append(target)
    stem = unit.removesuffix(".service").partition("@")[0]
    parts = stem.split("-")
    prefixes = [f"{'-'.join(parts[:n])}-.service" for n in range(len(parts) - 1, 0, -1)]
    directories = [f"{top}/{name}.d" for name in (*called, *prefixes, "service") for top in _UNITS]
    return [fragment, *files_of(root, directories, ".conf")]


def manager_files(root: str) -> list[str]:
    """The files in which systemd's defaults for services are set."""
    main = next(
        (
            f"{top}/system.conf"
            for top in _CONFIGURATION
            if os.path.exists(_below(root, f"{top}/system.conf"))
        ),
        None,
    )
    return [
        *([main] if main else []),
        *files_of(root, [f"{top}/system.conf.d" for top in _CONFIGURATION], ".conf"),
    ]


def inherited(root: str, login: Login) -> LockLimit | str:
    """The limit of a login that no line is about: that of the first process, where it can be read, and otherwise why
    not. A login manager may have been given another one."""
    try:
        found = _of(root, "1", f"user {login.name}")
    except PermissionError:
        return "no line of pam_limits is about the user, and the limit of process 1 may be read by root only"
    except ProcessLookupError:
        return "no line of pam_limits is about the user, and there is no process 1 to inherit from"
    return found._replace(charged=0, exempt=login.uid == 0)


def _of(root: str, process: str, who: str) -> LockLimit:
    """By /proc/PROCESS. Raises ProcessLookupError when it is not there, and PermissionError."""
    home = os.path.join(root, "proc", process)
    line = re.search(r"^Max locked memory\s+(\w+)\s+(\w+).*$", read(f"{home}/limits") or "", re.MULTILINE)
    if line is None:
        raise ProcessLookupError(home)
    soft, hard = (None if word == "unlimited" else int(word) for word in line.groups())
    state = memlock(home)
    said = " ".join(line[0].split())
    return LockLimit(who, soft, hard, f"/proc/{process}/limits", said, state.locked, state.cap_ipc_lock)


def _known(user: str) -> Login | None:
    from vfioctl.host.accounts import account_of, group_names

    account = account_of(user)
    if account is None:
        return None
    gids = list(dict.fromkeys((account.gid, *account.groups)))
    return Login(account.name, account.uid, tuple(zip(group_names(gids), gids, strict=True)))


def _in_files(root: str, user: str) -> Login | None:
    for name, _, uid, gid, *_ in _colons(root, "/etc/passwd", 7):
        if user in (name, uid) and uid.isdecimal() and gid.isdecimal():
            groups = [
                (group, int(number))
                for group, _, number, members in _colons(root, "/etc/group", 4)
                if number.isdecimal() and (number == gid or name in members.split(","))
            ]
            return Login(name, int(uid), tuple(sorted(groups, key=lambda group: group[1] != int(gid))))
    return None


def _colons(root: str, path: str, fields: int) -> Iterator[Sequence[str]]:
    text = read_text(root, path)
    for line in text.split("\n") if isinstance(text, str) else ():
        found = line.split(":")
        if len(found) == fields:
            yield found


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))
