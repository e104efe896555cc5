"""Runs a vfioctl command in this process, on a stand-in machine."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

from vfioctl.cli.app import run
from vfioctl.host.machine import Machine


@dataclass(frozen=True)
class Result:
    """What a command left, as tests.kernel.testbed.command.Result."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.stdout)

    @property
    def json_error(self) -> Any:
        """The ``error`` object on stderr: the last line, for notes may come before it."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


def run_command(machine: Machine | None, *arguments: object) -> Result:
    """``vfioctl ARGUMENT...``"""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run([str(argument) for argument in arguments], machine)
    return Result(status, out.getvalue(), err.getvalue())
