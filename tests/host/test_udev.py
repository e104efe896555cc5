"""udev's control socket: whether somebody listens."""

from __future__ import annotations

import socket
from pathlib import Path

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
