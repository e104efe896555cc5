"""Users and groups by their names. A directory on the network may be asked for them (nsswitch.conf), and may not
answer."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from vfioctl.errors import DeadlinePassed, visible
from vfioctl.host import bounded

T = TypeVar("T")

#: How long a directory may take, in seconds.
PATIENCE = 10.0


class Account(NamedTuple):
    """A user as /etc/passwd (or what stands for it) has them, with the groups that they are in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


def account_of(user: str) -> Account | None:
    """The user of this name or uid; None when there is none. Raises DeadlinePassed."""

    def look() -> tuple[str, int, int, tuple[int, ...], str, str] | None:
        try:
            entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        except (KeyError, OverflowError, ValueError):
            return None
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell

    found = _in_time(user, look)
    return None if found is None else Account(*found)


def uid_of(name: str) -> int | None:
    """The uid of the user with this name; None when there is none. Raises DeadlinePassed."""
    return _in_time(name, lambda: _or_none(lambda: pwd.getpwnam(name).pw_uid))


def gid_of(name: str) -> int | None:
    """The gid of the group with this name; None when there is none. Raises DeadlinePassed."""
    return _in_time(name, lambda: _or_none(lambda: grp.getgrnam(name).gr_gid))


def group_names(gids: Sequence[int]) -> list[str]:
    """The names of groups; of one that has none its number. Raises DeadlinePassed."""

    def name_of(gid: int) -> str:
        return _or_none(lambda: grp.getgrgid(gid).gr_name) or str(gid)

    return _in_time(f"gid {gids[0]}", lambda: [name_of(gid) for gid in gids])


def _or_none(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except KeyError:
        return None


def _in_time(name: str, look: Callable[[], T]) -> T:
    try:
        return bounded.call(look, PATIENCE)
    except bounded.Expired as expired:
        raise DeadlinePassed(
            f"who {visible(name)} is has not been answered within {PATIENCE:g} s: {expired.place}",
            hint="a directory of users is asked that does not answer (/etc/nsswitch.conf): getent passwd",
            subject=name,
        ) from expired
