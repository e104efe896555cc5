"""The kernel asks the user of a device to give it back: when somebody unbinds or unplugs it.

vfio-pci signals the eventfd of VFIO_PCI_REQ_IRQ_INDEX for that, and again every few seconds while it waits
(drivers/vfio/vfio_main.c, vfio_unregister_group_dev). The eventfd is not read here, so that others can poll it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from vfioctl.errors import VfioctlError, visible
from vfioctl.host import vfio_device, vfio_irqs
from vfioctl.host.ioctl import CallError
from vfioctl.uapi import vfio as uapi

if TYPE_CHECKING:
    from vfioctl.ops.keeper.kept import Kept


class Requested:
    """The requests for the devices of a keeper. ``wanted``: those that somebody wants back; ``release``: whether their
    groups are let go then."""

    def __init__(self, kept: Kept, *, release: bool) -> None:
        self._kept = kept
        self.release = release
        self._watched: dict[int, str] = {}
        self.wanted: set[str] = set()

    def watch(self, name: str, device: int) -> None:
        """Listens for the device, where it has such an interrupt."""
        try:
            info = vfio_device.device_get_info(device)
            if not info.flags & uapi.VFIO_DEVICE_FLAGS_PCI or info.num_irqs <= uapi.VFIO_PCI_REQ_IRQ_INDEX:
                return
        except CallError:
            return
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            vfio_irqs.device_set_irqs(device, uapi.VFIO_PCI_REQ_IRQ_INDEX, 0, [fd])
        except CallError:
            os.close(fd)
            return
        self._watched[fd] = name
        self._kept.keep(f"irq/{name}/req/0", os.dup(fd))

    def waiting(self) -> Iterator[int]:
        """The descriptors to poll."""
        return iter(list(self._watched))

    def arrived(self, fd: int) -> None:
        """Somebody wants the device back: says so in the system's log, and releases it when that was asked for."""
        name = self._watched.pop(fd, None)
        if name is None:  # let go meanwhile, with another device of its group
            return
        os.close(fd)
        self.wanted.add(name)
        _log(f"{self._kept.name or 'a container'}: {visible(name)} is wanted back by the host")
        if self.release:
            with suppress(VfioctlError, OSError):
                number, _ = self._kept.container.find_device(name)
                self._kept.remove(number)
                _log(f"{self._kept.name or 'a container'}: group {number} has been released")

    def forget(self, name: str) -> None:
        """The device is closed."""
        for fd in [fd for fd, other in self._watched.items() if other == name]:
            os.close(fd)
            del self._watched[fd]
        self.wanted.discard(name)

    def close(self) -> None:
        """All devices are."""
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()


def _log(text: str) -> None:
    import syslog

    syslog.openlog("vfioctl", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, text)
