"""Running a command as another user: the only place where vfioctl becomes somebody else."""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from vfioctl.host import bounded
from vfioctl.host.accounts import Account
from vfioctl.host.clib import INT, STRING, ULONG, library
from vfioctl.host.ioctl import dup_above

#: What concerns the one who waits for a command, and is blocked meanwhile (see ``execute``).
SIGNALS = frozenset(
    {
        signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
    }
)  # fmt: skip

#: <linux/prctl.h>
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 38, 47, 4
#: <linux/capability.h>: _LINUX_CAPABILITY_VERSION_3, this process; two times effective, permitted, inheritable.
_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)
_NO_CAPABILITIES = struct.pack("=6I", *[0] * 6)

#: The file name in the error for a limit that may not be raised.
LIMIT = "RLIMIT_MEMLOCK"

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "prctl": (INT, [INT, ULONG, ULONG, ULONG, ULONG]),
    "capset": (INT, [STRING, STRING]),
}


class Command(NamedTuple):
    """What is to be run: ``words`` (the first as it was given), the ``path`` found for it, by whom (None: by who has
    called), and with which RLIMIT_MEMLOCK (bytes; None: unlimited, or for who has called as it is)."""

    words: Sequence[str]
    path: str
    account: Account | None
    memlock: int | None
    environment: Mapping[str, str]


class Postponed:
    """Once ``begin`` has been called, SIGNALS wait: for the command that they are meant for, or for the end."""

    def __enter__(self) -> Postponed:
        # Whoever called us may have it ignored, and then nobody could wait for a child.
        self._of_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return self

    def begin(self) -> None:
        """From here on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def pause(self, seconds: float) -> int | None:
        """Sleeps, or less when a signal that asks to end has come or comes meanwhile: its number."""
        info = signal.sigtimedwait(SIGNALS - {signal.SIGCHLD}, seconds)
        return None if info is None else info.si_signo

    def __exit__(self, *error: object) -> None:
        while signal.sigtimedwait(SIGNALS, 0) is not None:  # what came too late
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.signal(signal.SIGCHLD, self._of_children)


def replace(command: Command, fds: Sequence[int]) -> NoReturn:
    """Becomes the command: the descriptors ``fds`` are 3 and up then, and no others are open but the standard streams.
    With an account, as that user and without privileges. Raises OSError when it cannot be executed."""
    moved = [dup_above(fd, 3 + len(fds)) for fd in fds]
    for number, fd in enumerate(moved, 3):
        os.dup2(fd, number)
    os.closerange(3 + len(fds), os.sysconf("SC_OPEN_MAX"))  # what vfioctl itself was given
    for name in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter's own wish
        signal.signal(name, signal.SIG_DFL)
    if command.account is not None:
        _become(_libc(), command.account, command.memlock)
    elif command.memlock is not None:
        _limit(command.memlock)
    os.execve(command.path, list(command.words), dict(command.environment))


def find(word: str, search: str, account: Account | None, memlock: int | None, timeout: float) -> str:
    """The path of a command as this user sees it, along ``search`` ($PATH). Becomes that user for it, in a process of
    its own, so that all that could fail then fails now.

    Raises FileNotFoundError, PermissionError when it is there and may not be executed, other OSErrors from becoming the
    user, or bounded.Expired.
    """
    libc = _libc()

    def look() -> str:
        if account is not None:
            _become(libc, account, memlock)
        return _search(word, search)

    return bounded.call(look, timeout)


def execute(command: Command) -> int:
    """Runs it to its end and returns its status as shells count: 128 and the number of the signal that ended it.

    The caller has blocked SIGNALS. What is sent to this process goes on to the command, but for what the terminal has
    sent to both. Raises OSError when it could not be executed.
    """
    libc = _libc()
    parent = os.getpid()
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        _execute(libc, command, parent, sender)
    os.close(sender)
    with open(receiver, "rb") as failure:
        status = _wait(child)
        number = failure.read()
    if number:
        raise OSError(int(number), os.strerror(int(number)), command.path)
    return status


def _execute(libc: Any, command: Command, parent: int, sender: int) -> NoReturn:
    try:
        for number in (
            *SIGNALS,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):  # the last two are the interpreter's own wish
            if signal.getsignal(number) is not signal.SIG_IGN or number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
        if command.account is not None:
            _become(libc, command.account, command.memlock)
        # Not before: the change of the user takes it away.
        _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.execve(command.path, list(command.words), dict(command.environment))
    except OSError as error:
        os.write(sender, str(error.errno).encode())
    finally:
        os._exit(127)


def _become(libc: Any, account: Account, memlock: int | None) -> None:
    """This process is the user's from here on, for good, and can get no privileges again by executing anything."""
    _limit(memlock)
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if libc.capset(_CAPABILITY_HEADER, _NO_CAPABILITIES) != 0:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)


def _limit(memlock: int | None) -> None:
    limit = resource.RLIM_INFINITY if memlock is None else min(memlock, (1 << 63) - 1)  # as Python takes it
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    except ValueError as error:  # Python's word for EPERM
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), LIMIT) from error


def _prctl(libc: Any, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _libc() -> Any:
    """Loaded before the fork: afterwards the user may not be able to read it."""
    return library(None, _FUNCTIONS)


def _search(word: str, search: str) -> str:
    """As shells do: a word with a slash is a path."""
    paths = [word] if "/" in word else [os.path.join(entry, word) for entry in search.split(":")]
    failure = errno.ENOENT
    for path in paths:
        try:
            os.stat(path)
        except OSError as error:
            if error.errno == errno.EACCES and "/" in word:
                failure = errno.EACCES
            continue
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        if "/" in word or not os.path.isdir(path):
            failure = errno.EACCES
    raise OSError(failure, os.strerror(failure), word)


def _wait(child: int) -> int:
    while True:
        info = signal.sigwaitinfo(SIGNALS)
        if info.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif info.si_code <= 0 or info.si_signo not in (signal.SIGINT, signal.SIGQUIT):
            # Above 0 it comes from the kernel: the terminal, which tells the whole process group.
            os.kill(child, info.si_signo)
