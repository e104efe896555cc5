"""udev: waiting until it has done with a node. The home of pyudev."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from typing import Any

import pyudev

_CONTROL = "/run/udev/control"
_QUEUE = "/run/udev/queue"
_STEP = 0.02


def is_running() -> bool:
    """Whether a udev daemon is there to act on nodes at all: somebody listens on its control socket. The socket's
    file alone does not tell, for it outlives the daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.setblocking(False)
        try:
            control.connect(_CONTROL)
        except BlockingIOError:  # it is there, with more callers than it takes: it hangs
            return True
        except OSError:
            return False
    return True


class NodeWatch:
    """Started before a change makes nodes, waits afterwards until udev has handled each of them: rules that set
    owner and mode have run then, and a chown after it stays."""

    def __init__(self) -> None:
        self._monitor: Any = None
        self._handled: set[str] = set()
        if is_running():
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
            for subsystem in ("vfio", "vfio-dev"):
                self._monitor.filter_by(subsystem)
            self._monitor.start()

    def settle(self, paths: Iterable[str], timeout: float) -> bool:
        """Waits for the "add" of every path, at most ``timeout`` seconds; whether all came. Without a udev daemon
        there is nothing to wait for."""
        if self._monitor is None:
            return True
        deadline = time.monotonic() + timeout
        wanted = set(paths) - self._handled
        while wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            event = self._monitor.poll(left)
            if event is not None and event.action in ("add", "change") and event.device_node:
                self._handled.add(event.device_node)
                wanted.discard(event.device_node)
        return True


def settle(paths: Iterable[str], timeout: float) -> bool:
    """Waits until udev's queue is empty and it has handled each of the nodes; whether that came to pass."""
    if not is_running():
        return True
    context = pyudev.Context()
    deadline = time.monotonic() + timeout
    while os.path.exists(_QUEUE) or not all(_is_handled(context, path) for path in paths):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP)
    return True


def _is_handled(context: Any, path: str) -> bool:
    try:
        return bool(pyudev.Devices.from_device_file(context, path).is_initialized)
    except pyudev.DeviceNotFoundError:
        return True  # gone, or no device node: nothing that udev could still change
