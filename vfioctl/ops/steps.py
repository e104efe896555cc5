"""One step, told and done, and what its refusal means."""

from __future__ import annotations

from collections.abc import Callable

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.host.machine import Machine
from vfioctl.model import SetAccess, Step
from vfioctl.policy.planning import as_shell
from vfioctl.policy.refusals.writes import explain_write

#: Says something to the person: steps begin with "+ ".
Tell = Callable[[str], None]


def apply(machine: Machine, step: Step, tell: Tell) -> None:
    """Does a step, telling it as a line of shell. Raises OSError or DeadlinePassed."""
    for line in as_shell([step]):
        tell(f"+ {line}")
    machine.apply(step)


def explain(step: Step, error: OSError, subject: str) -> VfioctlError:
    """The failure of a step, with cause and cure."""
    if isinstance(step, SetAccess):
        return KernelRefusal(f"{step.path}: {error.strerror}", subject=step.path, errno=error.errno)
    return explain_write(step, error, subject)
