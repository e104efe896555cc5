"""What goes to stderr. Every word passes ``visible``, for names from sysfs and arguments are hostile.

Nothing here raises: a stderr that is full, or whose reader has gone, must not look like a refusal of the kernel.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from vfioctl.errors import VfioctlError, visible, worst


def _line(text: str) -> None:
    _write(f"vfioctl: {visible(text)}")


def _write(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


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
                **failure.details,
            }
        }
        _write(json.dumps(document))
        return
    suffix = f" [{failure.errno_name}]" if failure.errno_name else ""
    for index, line in enumerate(failure.message.splitlines() or [""]):
        _line(f"{line}{suffix}" if index == 0 else f"  {line}")
    for seen in failure.details.get("evidence", ()):
        _line(f"  evidence: {seen['file']}: {seen['value']}")
    for line in (failure.hint or "").splitlines():
        _line(f"  cure: {line}")


def late(errors: Sequence[VfioctlError]) -> int:
    """Says who has not answered, of several; the exit status."""
    for each in errors:
        error(each)
    return int(worst(*(each.status for each in errors)))
