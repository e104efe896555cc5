"""Who is behind a process that runs as root. Pure."""

from __future__ import annotations

from collections.abc import Mapping

#: (uid_t)-1: nobody has logged in (audit's AUDIT_UID_UNSET).
_UNSET = "4294967295"


def caller(environment: Mapping[str, str], loginuid: str | None, uid: int) -> str | None:
    """The name or uid of the user who called sudo, pkexec or doas, or else who logged in (/proc/self/loginuid), or else
    the process's own ``uid``; None when that is root too, or cannot be told."""
    said = [environment.get(name) for name in ("SUDO_UID", "PKEXEC_UID", "DOAS_USER")]
    return next(
        (who for who in (*said, loginuid, str(uid)) if who and who not in ("0", "root", _UNSET)), None
    )
