"""udev's control socket: whether somebody listens; the kernel's events."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from vfioctl.host import udev


def test_a_daemon_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More callers than it takes: another one would wait for it without limit."""
    path = str(tmp_path / "control")
    monkeypatch.setattr(udev, "_CONTROL", path)
    assert not udev.is_running()
    callers = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.bind(path)
        control.listen(0)
        assert udev.is_running()
        for _ in range(2):
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            callers.append(caller)
            caller.setblocking(False)
            try:
                caller.connect(path)
            except BlockingIOError:
                break
        else:
            pytest.fail("it takes them all")
        assert udev.is_running()
    for caller in callers:
        caller.close()
    assert not udev.is_running()


class Monitor:
    """Events that have come, and errors of the socket."""

    def __init__(self, *coming: str | OSError) -> None:
        self.coming = list(coming)
        self.ready, self.other = socket.socketpair()
        self.other.send(b"x")

    def poll(self, timeout: float) -> SimpleNamespace | None:
        assert timeout == 0
        if not self.coming:
            self.ready.recv(100)
            return None
        item = self.coming.pop(0)
        if isinstance(item, OSError):
            raise item
        return SimpleNamespace(action=item)

    def fileno(self) -> int:
        return self.ready.fileno()

    def set_receive_buffer_size(self, size: int) -> None:
        assert size == udev._BUFFER

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.ready.close()
        self.other.close()


@pytest.mark.parametrize(
    ("coming", "matters"),
    [
        (["bind"], True),
        (["change", "change", "remove"], True),
        (["change", "online", "move"], False),
        ([OSError(errno.ENOBUFS, "lost")], True),
        ([], False),
    ],
)
def test_which_events_matter(
    monkeypatch: pytest.MonkeyPatch, coming: list[str | OSError], matters: bool
) -> None:
    monitor = Monitor(*coming)
    monkeypatch.setattr("pyudev.Monitor.from_netlink", lambda context, source: monitor)
    uevents = udev.Uevents()
    assert uevents.failure is None
    assert uevents.wait(0.05) is matters
    assert monitor.coming == []
    assert uevents.wait(0) is False
    monitor.close()


def test_a_flood_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    monkeypatch.setattr(monitor, "poll", lambda timeout: SimpleNamespace(action="change"))
    monkeypatch.setattr("pyudev.Monitor.from_netlink", lambda context, source: monitor)
    began = time.monotonic()
    assert udev.Uevents().wait(0.05) is False
    assert time.monotonic() - began < 5
    monkeypatch.setattr(monitor, "poll", lambda timeout: SimpleNamespace(action="add"))
    assert udev.Uevents().wait(5) is True
    monitor.close()


def test_the_reader_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    uevents = udev.Uevents(writing)
    uevents.wait(0)
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        uevents.wait(5)
    os.close(writing)
