"""The last keyboard: who has taken it away cannot log in to put it back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import visible
from vfioctl.host.files import read
from vfioctl.model import Use

_EV_REP = 0x14
#: KEY_Q to KEY_P, KEY_A and KEY_S: all in the lowest 32 bits, so that the width of the kernel's words does not matter.
_LETTERS = (0x3FF << 16) | (0b11 << 30)


class Keyboard(NamedTuple):
    """``path`` is the real sysfs path of its input device."""

    name: str
    path: str


def keyboard_uses(root: str, leaving: Mapping[str, Sequence[str]]) -> dict[str, tuple[Use, ...]]:
    """The uses of the devices by key whose leaving, with the real sysfs paths given, takes the last keyboard."""
    found = keyboards(root)
    taken: dict[str, list[str]] = {}
    left = len(found)
    for keyboard in found:
        takers = [
            key for key, tops in leaving.items() if keyboard.path.startswith(tuple(f"{t}/" for t in tops))
        ]
        left -= bool(takers)
        for key in takers:
            taken.setdefault(key, []).append(keyboard.name)
    if left:
        return {}
    return {
        key: (Use("last-keyboard", visible(f"no keyboard would be left: {', '.join(sorted(set(which)))}")),)
        for key, which in taken.items()
    }


def keyboards(root: str) -> list[Keyboard]:
    """The keyboards of /proc/bus/input/devices with letters; power buttons and the like have none, and what programs
    make up (uinput) is no way in."""
    found = []
    for block in (read(os.path.join(root, "proc/bus/input/devices")) or "").split("\n\n"):
        facts = dict(re.findall(r"^[A-Z]: (Name|Sysfs|Handlers|EV|KEY)=(.*)$", block, re.MULTILINE))
        path = facts.get("Sysfs", "")
        if (
            "kbd" in facts.get("Handlers", "").split()
            and _word(facts.get("EV")) >> _EV_REP & 1
            and _word(facts.get("KEY")) & _LETTERS == _LETTERS
            and not path.startswith("/devices/virtual/")
        ):
            real = os.path.realpath(os.path.join(root, f"sys{path}"))
            found.append(Keyboard(facts.get("Name", "").strip('"'), real))
    return found


def _word(bits: str | None) -> int:
    """The lowest word of a bit map, which is printed highest first (drivers/input/input.c)."""
    words = re.findall("[0-9a-f]+", bits or "")
    return int(words[-1], 16) if words else 0
