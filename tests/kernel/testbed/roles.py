"""Which PCI address each device of the test machine has in this guest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

MACHINE = Path("/run/testbed/machine.json")
TESTBED = Path("/run/testbed.json")
DEVICES = Path("/sys/bus/pci/devices")


def address_of(way: Sequence[str]) -> str:
    """The address of the device that is reached from a host bridge's bus (``0000:00``) by slots.

    Raises LookupError when the way ends before.
    """
    bus, first, *slots = way
    directory = (DEVICES / f"{bus}:{first}").resolve()
    if not directory.is_dir():
        raise LookupError(f"no device in slot {first} of the bus {bus}")
    for slot in slots:
        found = [
            path
            for path in directory.iterdir()
            if path.name.endswith(f":{slot}") and path.name.count(":") == 2
        ]
        if len(found) != 1:
            raise LookupError(f"no device in slot {slot} below {directory}")
        directory = found[0]
    return directory.name


def write_roles() -> dict[str, str]:
    """Role to address for the whole machine; kept in /run/testbed.json for scripts."""
    paths: dict[str, list[str]] = json.loads(MACHINE.read_text())["roles"]
    roles = {role: address_of(slots) for role, slots in paths.items()}
    TESTBED.write_text(json.dumps(roles, indent=1))
    return roles
