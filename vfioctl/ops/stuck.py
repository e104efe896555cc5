"""What there is to say when the kernel has not answered in time."""

from __future__ import annotations

from vfioctl.errors import Busy, DeadlinePassed
from vfioctl.host.holders import details
from vfioctl.host.journal import Journal
from vfioctl.host.machine import Machine
from vfioctl.model import BindingGoal, shown


def explain_deadline(machine: Machine, journal: Journal, error: DeadlinePassed) -> DeadlinePassed:
    """The same error with who holds the devices of the change, and what has become of each by now."""
    try:
        found = machine.find_holders(journal.before.bindings).holders
    except OSError:  # no process can be started, even to look
        found = ()
    lines = [error.message, *(holder.sentence for holder in found)]
    left = not_as_before(machine, journal)
    return DeadlinePassed(
        "\n".join([*lines, *left]),
        hint=error.hint,
        subject=error.subject,
        details={**error.details, **details(found), "left": left},
    )


def not_as_before(machine: Machine, journal: Journal) -> list[str]:
    """Which devices are not as they were, in words."""
    left = []
    for key, then in journal.before.bindings.items():
        try:
            now = machine.binding(key)
        except Busy as busy:
            left.append(f"{busy.message}; it had {then}")
            continue
        except OSError as failure:
            left.append(f"{shown(key)} cannot be read: {failure.strerror}; it had {then}")
            continue
        if now is not None and not BindingGoal.back_to(then).reached(now):
            left.append(f"{shown(key)} has {now}; it had {then}")
    return left
