"""The write that is done by a child: its errno, and its deadline."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.descriptors import alone
from vfioctl.errors import DeadlinePassed, ExitStatus
from vfioctl.host import kernel_write


def test_a_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    kernel_write.write(str(path), "text\n", 5)
    assert path.read_text() == "text\n"


def test_a_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kernel_write.write(str(tmp_path / "none"), "text", 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENODEV, errno.EINVAL, 255, 256, 512, 524])
def test_the_errno_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Also one that no exit status could carry (ENOTSUPP is 524)."""
    path = tmp_path / "file"
    path.touch()
    real = os.write

    def refuse(fd: int, data: bytes) -> int:
        if data == b"text":
            raise OSError(number, "refused")
        return real(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError) as caught:
        kernel_write.write(str(path), "text", 5)
    assert caught.value.errno == number
    assert caught.value.filename == str(path)


def test_the_deadline(tmp_path: Path) -> None:
    """A FIFO that nobody reads blocks in open, as unbind of a device in use blocks in write."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    began = time.monotonic()
    with pytest.raises(DeadlinePassed) as caught:
        kernel_write.write(path, "0000:01:00.0", 0.3)
    assert 0.3 <= time.monotonic() - began < 20
    assert caught.value.status is ExitStatus.TIMEOUT
    assert caught.value.hint is not None and "vfioctl recover" in caught.value.hint
    # The child is left alone until the kernel lets it go.
    reader = os.open(path, os.O_RDONLY)
    assert os.read(reader, 100) == b"0000:01:00.0"
    os.close(reader)
    os.wait()


@alone
def test_no_descriptor_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        kernel_write.write(str(path), "x", 5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_writer_that_is_killed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    real = os.write

    def die(fd: int, data: bytes) -> int:
        if data == b"text":
            os.kill(os.getpid(), signal.SIGKILL)
        return real(fd, data)

    monkeypatch.setattr(os, "write", die)
    with pytest.raises(OSError, match="died"):
        kernel_write.write(str(path), "text", 5)


def test_a_writer_left_behind_does_not_keep_the_callers_pipes(tmp_path: Path) -> None:
    """Otherwise $(vfioctl unbind ...) would wait for the kernel after all."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    script = (
        "from vfioctl.errors import DeadlinePassed\nfrom vfioctl.host import kernel_write\n"
        f"try: kernel_write.write({path!r}, 'text', 0.2)\nexcept DeadlinePassed: print('passed')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout == "passed\n"
    finally:
        os.close(os.open(path, os.O_RDWR))  # lets the writer go


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_waits_for_the_kernels_answer(tmp_path: Path, name: str) -> None:
    """The way back must not begin while the write is under way. The target answers some time after the signal."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    script = f"""
import os, signal, time
from vfioctl.host import kernel_write
from vfioctl.ops.signals import Interrupted, Signals
parent = os.getpid()
child = os.fork()
if child == 0:
    children = f"/proc/{{parent}}/task/{{parent}}/children"
    while len(open(children).read().split()) < 2:  # until the writer is there
        time.sleep(0.01)
    os.kill(parent, signal.{name})
    time.sleep(0.3)
    open({path!r} + ".answers", "w").close()
    with open({path!r}) as file:
        print(file.read(), flush=True)
    os._exit(0)
try:
    with Signals():
        kernel_write.write({path!r}, "landed", 20)
        time.sleep(0)
except Interrupted as error:
    answered = os.path.exists({path!r} + ".answers")
    os.waitpid(child, 0)
    print(error.message, answered)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"landed\ninterrupted by {name} True\n"
