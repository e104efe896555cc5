"""--user, --group-owner, --mode and --acl: who may open a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfioctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from vfioctl.policy.access import AccessWish, NamedAccess

F = TypeVar("F", bound=Callable[..., Any])


def access_options(function: F) -> F:
    """Adds the options; :func:`wish` understands their values."""
    function = click.option(
        "--acl",
        multiple=True,
        metavar="user:NAME:rw",
        help="Let one more user in, or a group (group:NAME:rw), by an access control list; repeatable.",
    )(function)
    function = click.option(
        "--mode",
        metavar="OCTAL",
        help="Permission bits of the nodes.  [default: 0600, or 0660 with --group-owner]",
    )(function)
    function = click.option("--group-owner", metavar="GROUP", help="Group (name or gid) of the nodes.")(
        function
    )
    return click.option("--user", metavar="USER", help="Owner (name or uid) of the nodes.")(function)


def wish(
    user: str | None, group_owner: str | None, mode: str | None, acl: Sequence[str] = ()
) -> AccessWish | None:
    """What was asked for, or None when nothing was. Raises UsageError, and NotFound for an unknown name."""
    if user is None and group_owner is None and mode is None and not acl:
        return None
    from vfioctl.policy.access import AccessWish

    kept = user is None and group_owner is None and mode is None
    bits = None if kept else _mode(mode, group_owner is not None)
    return AccessWish(_uid(user), _gid(group_owner), bits, tuple(map(_named, acl)))


def _named(text: str) -> NamedAccess:
    from vfioctl.policy.access import NamedAccess

    kind, _, rest = text.partition(":")
    name, _, letters = rest.rpartition(":")
    if kind not in ("user", "u", "group", "g") or not name or letters not in ("r", "rw", "w"):
        raise UsageError(
            f"--acl: {text!r} is no entry", hint="user:NAME:rw or group:NAME:rw, as for setfacl", subject=text
        )
    number = _uid(name) if kind[0] == "u" else _gid(name)
    assert number is not None
    return NamedAccess(kind[0], number, sum(bit for bit, c in ((4, "r"), (2, "w")) if c in letters))


def _mode(text: str | None, for_group: bool) -> int:
    if text is None:
        return 0o660 if for_group else 0o600
    digits = text.removeprefix("0o")
    if not digits or any(c not in "01234567" for c in digits) or int(digits, 8) > 0o777:
        raise UsageError(
            f"--mode: {text!r} is not a mode", hint="three octal digits, as for chmod: 660", subject=text
        )
    bits = int(digits, 8)
    if bits & 0o007:
        raise UsageError(
            f"--mode {text} would let everybody on the host drive the device",
            hint="name who may: --user NAME, or --group-owner NAME --mode 660",
            subject=text,
            code="world-access",
        )
    return bits


def _uid(name: str | None) -> int | None:
    from vfioctl.host.accounts import uid_of

    if name is None or name.isdecimal():
        return _number(name)
    _refuse_no_name("--user", name)
    uid = uid_of(name)
    if uid is None:
        raise NotFound(
            f"there is no user {name!r}", hint="a name or a uid", subject=name, code="no-such-user"
        )
    return uid


def _gid(name: str | None) -> int | None:
    from vfioctl.host.accounts import gid_of

    if name is None or name.isdecimal():
        return _number(name)
    _refuse_no_name("--group-owner", name)
    gid = gid_of(name)
    if gid is None:
        raise NotFound(
            f"there is no user group {name!r}", hint="a name or a gid", subject=name, code="no-such-user"
        )
    return gid


def _refuse_no_name(option: str, name: str) -> None:
    if not name or name[0] in "-+" or not name.isprintable():
        raise UsageError(f"{option}: {name!r} is no name", subject=name)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > 10 or int(text) > 0xFFFFFFFE:
        raise UsageError(f"{text} is no uid or gid", subject=text)
    return int(text)
