"""udev: waiting until it has done with a node, and the kernel's events that it lives on. The home of pyudev."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable
from typing import Any

import pyudev

_CONTROL = "/run/udev/control"
_QUEUE = "/run/udev/queue"
_STEP = 0.02
#: What happens to devices, buses and drivers; the rest ("change", "online" ...) is theirs.
_ACTIONS = frozenset({"add", "remove", "bind", "unbind"})
#: Bytes of events that wait to be read: hundreds. libudev takes 128 MiB, but what finds no room says no more than
#: what does.
_BUFFER = 1 << 17
#: Events that are read at a time: in a flood there is no end of them.
_BATCH = 1000


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


class Uevents:
    """The kernel's own events, with or without a udev daemon, as a reason to look again: what they say is not used, so
    that one that is lost, as in a flood, loses nothing. Who has this before looking misses nothing.

    ``failure``: why there are none. ``reader``: the descriptor of an output, whose reader may go away.
    """

    def __init__(self, reader: int | None = None) -> None:
        self._poll = select.poll()
        self._reader = reader
        self._monitor: Any = None
        self.failure: str | None = None
        if reader is not None:
            self._poll.register(reader, 0)  # errors and hang-ups are always told
        try:
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
            self._monitor.set_receive_buffer_size(_BUFFER)
            self._monitor.start()
            self._poll.register(self._monitor.fileno(), select.POLLIN)
        except (ImportError, OSError) as error:  # no libudev; no such sockets in a sandbox
            self._monitor = None
            self.failure = str(error)

    def wait(self, seconds: float) -> bool:
        """Whether within so many seconds a device has come, gone, or changed its driver. Raises BrokenPipeError when
        the reader of the output has gone."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            ready = self._poll.poll(max(0.0, left) * 1000)
            if any(fd == self._reader for fd, _ in ready):
                raise BrokenPipeError
            if ready and self._heard():
                return True
            if left <= 0:
                return False

    def _heard(self) -> bool:
        """Takes what has come; whether any of it matters."""
        found = False
        for _ in range(_BATCH):
            try:
                event = self._monitor.poll(0)
            except OSError:  # ENOBUFS: some were lost
                found = True
                continue
            if event is None:
                break
            found = found or event.action in _ACTIONS
        return found


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
