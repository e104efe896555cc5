"""Resetting an open device: its function, or the slot or bus that it is in (floor 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from vfioctl.errors import KernelRefusal
from vfioctl.host import vfio_reset
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio_device import device_get_info
from vfioctl.model import Snapshot
from vfioctl.ops.asking import ask, call
from vfioctl.ops.explained import explained
from vfioctl.ops.keeper.client import close_all
from vfioctl.policy import resets
from vfioctl.policy.refusals import State, explain
from vfioctl.uapi import vfio

if TYPE_CHECKING:
    from vfioctl.ops.device import OpenDevice


class Resets(NamedTuple):
    """What resets a device has. ``hot``: every device that a reset of its slot or bus reaches; None when there is no
    such reset, and then ``why_not`` says why."""

    function: bool
    hot: tuple[resets.Reached, ...] | None
    why_not: str | None = None

    @property
    def within(self) -> bool:
        """Whether a hot reset reaches only what may be reset."""
        return self.hot is not None and all(each.why_not is None for each in self.hot)


def possible(device: OpenDevice, snapshot: Snapshot, timeout: float) -> Resets:
    """The resets that an open device has. Raises VfioctlError."""
    with explained(State(device=device.name)):
        function = bool(device_get_info(device.fd).flags & vfio.VFIO_DEVICE_FLAGS_RESET)
    try:
        return Resets(function, _scope(device, snapshot, timeout))
    except CallError as error:
        return Resets(
            function, None, explain(error.call, error.errno or 0, State(device=device.name)).message
        )


def reset_function(device: OpenDevice, snapshot: Snapshot, timeout: float) -> resets.Reached:
    """Resets the device alone. Raises VfioctlError."""
    ask(device.name, lambda: vfio_reset.device_reset(device.fd), timeout)
    known = next((each for each in snapshot.devices if each.address == device.name), None)
    return resets.judge(known, device.name, known and known.group, held=True)._replace(why_not=None)


def reset_hot(device: OpenDevice, snapshot: Snapshot, timeout: float) -> tuple[resets.Reached, ...]:
    """Resets the slot or bus, with all that is in it; what that was. Raises VfioctlError: GuardRefusal when it reaches
    what the container does not hold."""
    with explained(State(device=device.name)):
        scope = _scope(device, snapshot, timeout)
    resets.guard(device.name, scope)
    reached = {each.group for each in scope}
    with _groups(device) as held:
        fds = [fd for group, fd in held.items() if group in reached]
        ask(device.name, lambda: vfio_reset.device_pci_hot_reset(device.fd, fds), timeout)
    return scope


def _scope(device: OpenDevice, snapshot: Snapshot, timeout: float) -> tuple[resets.Reached, ...]:
    """Raises CallError."""
    found = call(
        device.name,
        lambda: [
            (each.address, each.group, each.owned)
            for each in vfio_reset.device_get_pci_hot_reset_info(device.fd).devices
        ],
        timeout,
    )
    if not found:
        raise KernelRefusal(
            f"the kernel names no device that a reset of {device.name} reaches", subject=device.name
        )
    known = {each.address: each for each in snapshot.devices if each.bus == "pci"}
    with _groups(device) as held:
        return tuple(
            resets.judge(
                known.get(address),
                address,
                known[address].group if address in known else group,
                held=bool(owned) if group is None else group in held,
            )
            for address, group, owned in found
        )


@contextmanager
def _groups(device: OpenDevice) -> Iterator[dict[int, int]]:
    """The descriptors of the container's groups by their numbers, closed after the block."""
    found = device.client.descriptors()
    try:
        yield {
            int(name.removeprefix("group-")): fd for name, fd in found.items() if name.startswith("group-")
        }
    finally:
        close_all(found)
