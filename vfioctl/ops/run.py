"""run: lend devices to a command, and take them back however it ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vfioctl.errors import Busy, DeadlinePassed, NotFound, NotRestored, UsageError, VfioctlError, visible
from vfioctl.host.accounts import Account, account_of
from vfioctl.host.bounded import Expired
from vfioctl.host.child import LIMIT, Command, Postponed
from vfioctl.host.machine import Machine
from vfioctl.model import Snapshot, shown
from vfioctl.ops.access import node_paths
from vfioctl.ops.assign import Done, Plan, carry_out
from vfioctl.ops.lease import holders_of
from vfioctl.ops.restore import give_back
from vfioctl.ops.signals import Interrupted
from vfioctl.ops.steps import Tell
from vfioctl.policy.access import AccessWish


class Order(NamedTuple):
    """What is to be run: ``words`` by the user ``account``, with this RLIMIT_MEMLOCK (bytes; None: unlimited) and
    ``environment``."""

    words: Sequence[str]
    account: Account
    memlock: int | None
    environment: Mapping[str, str]


class NotExecuted(VfioctlError):
    """The command is not there (``number`` 127) or cannot be executed (126), as shells count."""

    code = "not-executed"

    def __init__(self, word: str, error: OSError) -> None:
        limit = error.filename == LIMIT
        super().__init__(
            f"{LIMIT if limit else visible(word) or repr(word)}: {error.strerror}",
            hint="it may not be raised here (a container without CAP_SYS_RESOURCE): --memlock SIZE"
            if limit
            else None,
            subject=word,
            errno=error.errno,
        )
        self.number = 127 if error.errno == errno.ENOENT else 126


def borrower(user: str | None) -> Account:
    """The account that the command is to run as. Raises UsageError when nobody is named, NotFound."""
    if user is None:
        raise UsageError(
            "as which user? it was called by root itself",
            hint="--user NAME; or, to run it as root all the same, but without capabilities: --user root",
        )
    account = account_of(user)
    if account is None:
        raise NotFound(
            f"there is no user {user!r}", hint="a name or a uid", subject=user, code="no-such-user"
        )
    return account


def run(
    machine: Machine,
    make: Callable[[], Plan],
    order: Order,
    tell: Tell,
    ready: Callable[[Done], None],
    wait: float | None = None,
) -> int:
    """Makes the bind that ``make`` plans, gives the nodes to the user, runs the command, and puts everything back; the
    command's status as shells count. ``ready`` is told what has been bound, before the command starts.

    Raises what a bind raises, NotExecuted, Interrupted when a signal came before the command was there, and NotRestored
    when not everything could be given back: the lease stays then, for ``recover``.
    """
    machine.state.ensure()
    path = find(machine, order.words[0], order.environment, order.account, order.memlock)
    status = None
    with Postponed() as signals:

        def plan() -> Plan:
            found = make()
            _refuse_opened(machine, found.snapshot, found)

            def lend() -> None:
                signals.begin()
                machine.leases.lend()

            return found._replace(request=found.request._replace(command="run", lend=lend))

        try:
            done = carry_out(machine, plan, AccessWish(uid=order.account.uid, mode=0o600), tell, wait)
            if not done.settled:
                raise DeadlinePassed(
                    f"udev has not handled the nodes within {machine.timeout:g} s; everything is given back"
                )
            ready(done)
            if number := signals.pause(0):
                raise Interrupted(number)
            environment = _environment(done, order)
            command = Command(order.words, path, order.account, order.memlock, environment)
            status = _execute(machine, command)
        finally:
            lease = machine.leases.mine()
            try:
                if lease is not None:
                    give_back(machine, lease, tell, signals.pause)
            except NotRestored:
                if status is not None:
                    tell(f"the command ended with status {status}")
                raise
    return status


def find(
    machine: Machine, word: str, environment: Mapping[str, str], account: Account | None, memlock: int | None
) -> str:
    """The path of a command as the user sees it. Raises NotExecuted, DeadlinePassed."""
    try:
        return machine.find_command(word, environment.get("PATH", os.defpath), account, memlock)
    except Expired as expired:
        raise DeadlinePassed(
            f"{visible(word)} has not been found within {machine.timeout:g} s: {expired.place}", subject=word
        ) from expired
    except OSError as error:
        raise NotExecuted(word, error) from error


def _execute(machine: Machine, command: Command) -> int:
    try:
        return machine.execute(command)
    except OSError as error:
        raise NotExecuted(command.path, error) from error


def _refuse_opened(machine: Machine, snapshot: Snapshot, plan: Plan) -> None:
    """A group that somebody has open already admits nobody else. Raises Busy."""
    for group in snapshot.groups:
        keys = [device.key for device in group.devices if device.key in plan.request.bindings]
        if keys and group.node is not None and machine.is_held(group.node.path):
            who = holders_of(machine, group.node.path, keys[0])
            raise Busy(
                f"{shown(keys[0])} is in use: {group.node.path} is held by {who}",
                hint="a group admits one user at a time: end that one first",
                subject=shown(keys[0]),
                code="group-busy",
            )


def _environment(done: Done, order: Order) -> dict[str, str]:
    """The user's own, with what has been lent."""
    account = order.account
    lent = [
        device
        for device in done.snapshot.devices
        if device.key in (goals := done.plan.request.bindings) and goals[device.key].driver is not None
    ]
    groups = sorted({device.group for device in lent if device.group is not None})
    return {
        **order.environment,
        **of_account(account),
        "VFIOCTL_DEVICES": " ".join(shown(device.key) for device in lent),
        "VFIOCTL_GROUPS": " ".join(map(str, groups)),
        "VFIOCTL_NODES": " ".join(node_paths(done.snapshot, groups)),
    }


def of_account(account: Account) -> dict[str, str]:
    """What the environment says of a user."""
    return {
        "HOME": account.home,
        "SHELL": account.shell,
        "USER": account.name,
        "LOGNAME": account.name,
    }
