"""One step, told and done, and what its refusal means."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from vfioctl.errors import Busy, VfioctlError
from vfioctl.host.evidence import look_at
from vfioctl.host.holders import VFIO_KINDS
from vfioctl.host.machine import Machine
from vfioctl.model import Evidence, Look, SetAccess, Step, Write, shown
from vfioctl.policy.planning import as_shell
from vfioctl.policy.refusals import State, explain_access, explain_write
from vfioctl.policy.refusals.facts import release_of
from vfioctl.policy.refusals.state import PARAMETERS

#: Says something to the person: steps begin with "+ ".
Tell = Callable[[str], None]


def apply(machine: Machine, step: Step, tell: Tell) -> None:
    """Does a step, telling it as a line of shell. Raises OSError or DeadlinePassed."""
    for line in as_shell([step]):
        tell(f"+ {line}")
    machine.apply(step)


def explain(machine: Machine, step: Step, error: OSError, subject: str) -> VfioctlError:
    """The failure of a step, with cause, evidence and cure. ``subject``: the device (bus/address), node or driver."""

    def read(look: Look) -> list[Evidence]:
        return look_at(look, machine.root)

    number = error.errno or 0
    if isinstance(step, SetAccess):
        return explain_access(step.path, number, State(), read)
    return explain_write(step.path, step.data, number, _around(machine, step, number, subject), read)


def _around(machine: Machine, write: Write, number: int, key: str) -> State:
    """What is known of the device ``key`` and of the driver that was asked, after a write has failed."""
    named = re.fullmatch(r"/sys/bus/([^/]+)/drivers/([^/]+)/[^/]+", write.path)
    state = State(
        device=shown(key),
        driver=named[2] if named else None,
        registered=machine.has_driver(named[1], named[2]) if named else None,
        gone="/" in key and not machine.is_there(key),
    )
    try:
        switched_on = frozenset(name for name in PARAMETERS if machine.is_switched_on(*name.split(".")))
        state = state._replace(switched_on=switched_on)
        snapshot = machine.snapshot()
        about = next((device for device in snapshot.devices if device.key == key), None)
        state = state._replace(about=about, kernel=release_of(snapshot.kernel))
        if about is None:
            return state
        now = machine.binding(key)
        if now is not None:
            state = state._replace(
                about=about._replace(driver=now.driver, driver_override=now.driver_override),
                numvfs=now.numvfs,
            )
        if number in (errno.EBUSY, errno.EINVAL):
            members = [device.key for device in snapshot.devices if device.group == about.group]
            found = machine.find_holders(members if about.group is not None else [key]).holders
            holders = [holder for holder in found if holder.kind in VFIO_KINDS]
            state = state._replace(
                holders=tuple(dict.fromkeys(map(str, holders))),
                seen=tuple(
                    Evidence(each.node, f"open in {each}") for each in holders if each.node is not None
                ),
            )
    except (OSError, Busy):  # what cannot be looked at now is not known
        pass
    return state
