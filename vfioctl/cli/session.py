"""What one run of vfioctl was asked for, and its access to the host."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from vfioctl.errors import UsageError
from vfioctl.model import Snapshot

if TYPE_CHECKING:
    from vfioctl.host.machine import Machine


class Session:
    """Options of ``vfioctl`` itself, and the host behind them; carried as click's ``ctx.obj``."""

    def __init__(
        self,
        root: str | None,
        color: str,
        timeout: float,
        verbose: bool,
        machine: Machine | None = None,
        asked: str | None = None,
    ) -> None:
        """``root`` is what ``--root`` stands for, which was ``asked`` for by that name."""
        self.replay = root is not None
        self._asked = asked
        self.root = root or (machine.root if machine is not None else "/")
        self.color = color
        self.timeout = timeout
        self.verbose = verbose
        self._machine = machine

    def snapshot(self, subjects: Collection[str] = (), *, ungrouped: bool = True) -> Snapshot:
        """What is there now, with the devices that ``subjects`` name by their bus. Raises PermissionError when sysfs
        may not be read."""
        named: list[str] = []
        if subjects:
            from vfioctl.policy.subjects import named_on_bus

            named = named_on_bus(subjects)
        if self._machine is not None and not self.replay:
            self._machine.named = named
            return self._machine.snapshot()
        from vfioctl.host.reader import read_snapshot

        found = read_snapshot(self.root, ungrouped=ungrouped, named=named)
        for device in found.devices:
            if device.locked:
                self.tell(
                    f"the kernel holds the lock of {device.address} (a driver is being bound, unbound or reset): "
                    "its driver_override cannot be told"
                )
        return found

    @cached_property
    def machine(self) -> Machine:
        """The running host, for commands that change it or open its device nodes. Raises UsageError under --root."""
        if self.replay:
            raise UsageError(
                "--root is for looking: this command works on the running host only", subject=self._asked
            )
        if self._machine is not None:
            return self._machine
        from vfioctl.host.machine import Machine

        return Machine(timeout=self.timeout)

    def tell(self, text: str) -> None:
        """Says on stderr what is being done: steps (lines that begin with +) only with -v."""
        if self.verbose or not text.startswith("+ "):
            from vfioctl.cli import messages

            messages.note(text)
