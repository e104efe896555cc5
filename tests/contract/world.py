"""What the contract needs of a host, imitated or real."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

#: The devices that the contract moves, and the driver that each has at the start of a test.
MOVED: Mapping[str, str | None] = {
    "edu": None,
    "nic_a": "e1000e",
    "nic_b": "e1000e",
    "conv_bridge": "shpchp",
    "conv_edu0": None,
    "conv_edu1": None,
    "conv_nic": "e1000",
}


class Result(Protocol):
    """What a command left."""

    @property
    def status(self) -> int: ...

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...

    @property
    def json(self) -> Any: ...


class World(Protocol):
    """A host with the devices of tests/kernel/testbed/machine.py, asked and changed without vfioctl but for ``run``."""

    @property
    def roles(self) -> Mapping[str, str]: ...

    def run(self, *arguments: object) -> Result: ...

    def driver(self, address: str) -> str | None: ...

    def override(self, address: str) -> str | None: ...

    def group(self, address: str) -> int: ...

    def node(self, group: int) -> tuple[int, int, int] | None:
        """Owner, group and mode of the group's node; None when it is not there."""

    def write(self, path: str, data: str) -> None:
        """A write to sysfs; raises OSError."""

    def load_module(self, name: str) -> None: ...


def state(world: World) -> dict[str, tuple[str | None, str | None]]:
    """Driver and override of all devices that the contract moves."""
    return {role: (world.driver(world.roles[role]), world.override(world.roles[role])) for role in MOVED}


def done(result: Result) -> Any:
    """The document of a command that succeeded."""
    assert result.status == 0, result.stderr
    return result.json


def refused(result: Result, status: int) -> Any:
    """The error of a command that failed as it should: one JSON object on stderr, nothing on stdout."""
    assert result.status == status, (result.stdout, result.stderr)
    assert result.stdout == ""
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert set(error) >= {"code", "message", "hint", "errno", "subject"}
    assert error["message"] and "Traceback" not in result.stderr
    return error
