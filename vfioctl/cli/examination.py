"""What a doctor has to know, gathered for the question."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vfioctl.model import Device, IommuGroup, LockLimit, Readings, Snapshot, Unread
from vfioctl.policy.selection import members_to_bind
from vfioctl.policy.viability import is_vfio_bound, judge

if TYPE_CHECKING:
    from vfioctl.cli.session import Session
    from vfioctl.policy.doctor.findings import Case

#: The options --user, --pid, --unit: at most one is given.
Whose = tuple[str | None, int | None, str | None]


def case_of(
    session: Session,
    snapshot: Snapshot,
    asked: Sequence[IommuGroup | Device],
    whose: Whose,
    memory: int | None,
) -> Case:
    """All that is to be judged. Raises NotFound for a user, process or unit that is not there."""
    from vfioctl.host import modules
    from vfioctl.host.reader import read_platform
    from vfioctl.host.readings import read_readings
    from vfioctl.host.usage import uses_of
    from vfioctl.policy.doctor.findings import Case
    from vfioctl.policy.variants import ANY_DEVICE, choose

    root, release = session.root, snapshot.kernel.release
    candidates = _candidates(snapshot, asked)
    keys = [device.key for device in candidates]
    aliases = modules.aliases(root, release or "", "vfio_pci:") if asked else []
    choices = {d.key: choose(d.modalias, aliases) for d in candidates if d.modalias}
    readings = read_readings(root, release, keys)
    return Case(
        snapshot,
        read_platform(root),
        readings,
        tuple(asked),
        tuple(candidates),
        uses_of(root, keys, session.timeout) if keys else {},
        {k: c.alias.module for k, c in choices.items() if c and c.alias.pattern != ANY_DEVICE},
        _lock(session, whose, snapshot.kernel.has_iommufd),
        memory,
    )


def _candidates(snapshot: Snapshot, asked: Sequence[IommuGroup | Device]) -> list[Device]:
    """What is assigned or to be: of a group the members that a bind takes; without a question what is on VFIO now."""
    found: dict[str, Device] = {}
    for subject in asked or snapshot.groups:
        if isinstance(subject, Device):
            devices = [subject]
        elif asked:
            devices = members_to_bind(judge(subject, snapshot.kernel))[0]
        else:
            devices = [device for device in subject.devices if is_vfio_bound(device)]
        found.update((device.key, device) for device in devices)
    return list(found.values())


def _lock(session: Session, whose: Whose, iommufd: bool) -> LockLimit | str:
    """Whose limit of locked memory counts, or why it is not known. With ``iommufd`` all processes of a user share
    theirs; a new process of type1's has its own."""
    from vfioctl.host.memory import allowance, pinned_by
    from vfioctl.host.readings import read_text
    from vfioctl.host.recorded import recorded
    from vfioctl.policy.doctor import limits

    root = session.root
    user, pid, unit = whose
    if user is not None:
        login, paths = allowance.login_of(root, user), allowance.limits_files(root)
        readings = Readings({path: read_text(root, path) for path in paths})
        if (why := _forbidden(readings)) is not None:
            return why
        found = limits.of_login(login, readings, paths) or allowance.inherited(root, login)
        if isinstance(found, LockLimit) and iommufd:
            return found._replace(charged=pinned_by(login.uid, os.path.join(root, "proc")))
        return found
    if pid is not None:
        return allowance.of_process(root, pid)
    if unit is not None:
        name = limits.unit_name(unit)
        paths, defaults = allowance.unit_files(root, name), allowance.manager_files(root)
        readings = Readings({path: read_text(root, path) for path in (*paths, *defaults)})
        return _forbidden(readings) or limits.of_unit(name, readings, paths, defaults)
    if root == "/":
        return allowance.of_caller()
    record = recorded(root)
    return "who calls is not of this tree: --user, --pid or --unit" if record is None else record.lock


def _forbidden(readings: Readings) -> str | None:
    """Why the limit is not known though there are lines about it."""
    paths = [path for path in readings.texts if readings.why(path) is Unread.FORBIDDEN]
    return f"only root may read {', '.join(paths)}" if paths else None
