"""Run the command line in a guest as a process of its own, with the user, limits and streams of a test's choice.

Starting Python costs a second under emulation, so a child is forked from the test's own process, where vfioctl
is imported already; ``real=True`` executes an interpreter instead.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import importlib
import io
import json
import os
import pkgutil
import pty
import resource
import selectors
import signal
import struct
import sys
import termios
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

DEADLINE = 120.0  # seconds for one command
PR_SET_DUMPABLE = 4
TERMINAL_ROWS, TERMINAL_COLUMNS = 40, 160


@dataclass(frozen=True)
class Result:
    """What a command left. ``status`` is negative when a signal ended it, as in ``subprocess``."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.stdout)

    @property
    def json_error(self) -> Any:
        """The ``error`` object on stderr: the last line, for notes may come before it."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


class Running:
    """A command that has been started; see ``start``."""

    def __init__(self, arguments: Sequence[str], pid: int, outputs: Mapping[int, str], began: float) -> None:
        self.arguments = tuple(arguments)
        self.pid = pid
        self._began = began
        self._outputs = dict(outputs)  # file descriptor to "stdout" or "stderr"
        self._text = {"stdout": b"", "stderr": b""}
        self._pidfd = os.pidfd_open(pid)
        for output in self._outputs:
            os.set_blocking(output, False)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the command and to what it started (its session)."""
        os.killpg(self.pid, number)

    def alive(self) -> bool:
        """Whether the command has not ended."""
        return not self._select(0.0, {self._pidfd: ""})

    def printed(self, stream: str = "stdout") -> str:
        """What it has printed up to now, in whole lines."""
        self._read(list(self._outputs))
        return self._text[stream][: self._text[stream].rfind(b"\n") + 1].decode()

    def wait(self, deadline: float = DEADLINE) -> Result:
        """The result, when the command has ended; fails after ``deadline`` seconds and kills it."""
        until = time.monotonic() + deadline
        ended = False
        while not ended:
            left = until - time.monotonic()
            if left <= 0:
                self._give_up(deadline)
            ready = self._select(left, {self._pidfd: "", **self._outputs})
            # What the command wrote before its end is there now. A process that it left behind may hold the
            # streams open, so their end is not waited for.
            ended = self._pidfd in ready
            self._read(self._outputs if ended else [fd for fd in ready if fd in self._outputs])
        return self._result()

    def _select(self, seconds: float, descriptors: Mapping[int, str]) -> set[int]:
        with selectors.DefaultSelector() as selector:
            for descriptor in descriptors:
                selector.register(descriptor, selectors.EVENT_READ)
            return {key.fd for key, _ in selector.select(seconds)}

    def _read(self, ready: Sequence[int] | Mapping[int, str]) -> None:
        for output in list(ready):
            while True:
                try:
                    data = os.read(output, 65536)
                except BlockingIOError:
                    break
                except OSError:  # EIO: nobody has the terminal open any more
                    data = b""
                if not data:
                    os.close(output)
                    del self._outputs[output]
                    break
                self._text[self._outputs[output]] += data

    def _result(self) -> Result:
        _, status = os.waitpid(self.pid, 0)
        for descriptor in (self._pidfd, *self._outputs):
            os.close(descriptor)
        texts = {name: data.decode(errors="surrogateescape") for name, data in self._text.items()}
        seconds = time.monotonic() - self._began
        return Result(
            self.arguments, os.waitstatus_to_exitcode(status), texts["stdout"], texts["stderr"], seconds
        )

    def _give_up(self, deadline: float) -> NoReturn:
        where = _kernel_stack(self.pid)
        self.kill()
        self._read(self._outputs)
        stuck = "" if self._select(5.0, {self._pidfd: ""}) else "; it does not even die by SIGKILL"
        raise AssertionError(
            f"vfioctl {' '.join(self.arguments)} did not end in {deadline} s{stuck}\n"
            f"in the kernel at: {where}\nstdout: {self._text['stdout']!r}\nstderr: {self._text['stderr']!r}"
        )


@dataclass(frozen=True)
class Setting:
    """How a command is run. ``user`` is (uid, gid); ``memlock`` is RLIMIT_MEMLOCK in bytes, soft and hard.

    With ``tty`` all three standard streams are a terminal, and what is printed comes as ``stdout``.
    ``real`` executes a new interpreter. ``pass_fds`` stay open under their numbers.
    """

    user: tuple[int, int] | None = None
    memlock: int | None = None
    stdin: str | None = None
    env: Mapping[str, str] | None = None
    tty: bool = False
    real: bool = False
    cwd: str = "/"
    pass_fds: tuple[int, ...] = ()


def start(
    arguments: Sequence[str], setting: Setting, main: Callable[[list[str]], object] | None = None
) -> Running:
    """Start ``vfioctl`` with ``arguments``. ``main`` stands in for it in the test-bed's own tests."""
    if main is None and not setting.real:
        main = preloaded_main()
    streams, outputs, source = _terminal() if setting.tty else _pipes()
    began = time.monotonic()
    ready, not_ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(arguments, setting, streams, main)
    for descriptor in {*streams, not_ready}:
        os.close(descriptor)
    # Ends when the child has closed what is not its own: from then on it is in its own session and can be killed.
    os.read(ready, 1)
    os.close(ready)
    running = Running(arguments, pid, outputs, began)
    if setting.stdin:
        os.write(source, setting.stdin.encode())
    if source not in outputs:
        os.close(source)
    return running


@functools.cache
def preloaded_main() -> Callable[[list[str]], object]:
    """vfioctl's ``main``, with all that a command may import imported already: that is what takes the time."""
    package = importlib.import_module("vfioctl")
    for module in pkgutil.walk_packages(package.__path__, "vfioctl."):
        importlib.import_module(module.name)
    for name in ("rich.console", "rich.progress", "rich.table", "rich.text", "yaml"):
        importlib.import_module(name)
    main: Callable[[list[str]], object] = importlib.import_module("vfioctl.__main__").main
    return main


def _pipes() -> tuple[tuple[int, int, int], dict[int, str], int]:
    stdin, source = os.pipe()
    out, stdout = os.pipe()
    err, stderr = os.pipe()
    return (stdin, stdout, stderr), {out: "stdout", err: "stderr"}, source


def _terminal() -> tuple[tuple[int, int, int], dict[int, str], int]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", TERMINAL_ROWS, TERMINAL_COLUMNS, 0, 0))
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST  # newlines as they are written
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    return (slave, slave, slave), {master: "stdout"}, master


def _child(
    arguments: Sequence[str],
    setting: Setting,
    streams: tuple[int, int, int],
    main: Callable[[list[str]], object] | None,
) -> NoReturn:
    """The new process; whatever happens it must not go on as a second pytest."""
    status = 1
    try:
        _become(setting, streams)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/root" if setting.user is None else "/",
            "LC_ALL": "C.UTF-8",
            **({"TERM": "xterm-256color"} if setting.tty else {}),
            **{
                name: os.environ[name]
                for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
                if name in os.environ
            },
            **(setting.env or {}),
        }
        if main is None:
            command = [sys.executable, "-m", "vfioctl", *arguments]
            os.execve(command[0], command, environment)
        os.environ.clear()
        os.environ.update(environment)
        status = _exit_status(main, arguments)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _become(setting: Setting, streams: tuple[int, int, int]) -> None:
    """Give this process what a new one would have."""
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    if setting.tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _close_others({0, 1, 2, *setting.pass_fds})
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None) and number != signal.SIGPIPE:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What pytest put there writes elsewhere.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), line_buffering=setting.tty
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), line_buffering=True, errors="backslashreplace"
    )
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    os.chdir(setting.cwd)
    if setting.memlock is not None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (setting.memlock, setting.memlock))
    if setting.user is not None:
        uid, gid = setting.user
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        # As after an exec: otherwise the process's own /proc files belong to root.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def _close_others(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:  # that of the listing itself
                continue


def _exit_status(main: Callable[[list[str]], object], arguments: Sequence[str]) -> int:
    """What the interpreter makes of the end of a program."""
    sys.argv = ["vfioctl", *arguments]
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = end.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _kernel_stack(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stack").read_text().strip()
    except OSError as error:
        return f"unknown ({error})"
