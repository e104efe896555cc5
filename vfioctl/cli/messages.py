"""What goes to stderr. Every word passes :func:`visible`, for names from sysfs and arguments are hostile."""

from __future__ import annotations

import sys

from vfioctl.errors import VfioctlError


def visible(text: str) -> str:
    """``text`` with everything that is not printable as a backslash escape: nothing reaches a terminal raw.

    Line breaks are escaped as well; callers print one line at a time.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _line(text: str) -> None:
    print(f"vfioctl: {visible(text)}", file=sys.stderr)


def note(text: str) -> None:
    """Something worth knowing that is no failure."""
    _line(text)


def warn(text: str) -> None:
    """Something that will go wrong later."""
    _line(f"warning: {text}")


def error(failure: VfioctlError, *, as_json: bool = False) -> None:
    """Why the command failed: cause, then cure."""
    if as_json:
        import json

        document = {
            "error": {
                "code": failure.code,
                "message": failure.message,
                "hint": failure.hint,
                "errno": failure.errno_name,
                "subject": failure.subject,
            }
        }
        print(json.dumps(document), file=sys.stderr)
        return
    suffix = f" [{failure.errno_name}]" if failure.errno_name else ""
    for index, line in enumerate(failure.message.splitlines() or [""]):
        _line(f"{line}{suffix}" if index == 0 else f"  {line}")
    for line in (failure.hint or "").splitlines():
        _line(f"  cure: {line}")
