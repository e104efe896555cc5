"""Starting a keeper: a process of its own, apart from the terminal, which ends with the last one who can talk to it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator

from vfioctl.host import channel
from vfioctl.host.bounded import postponed
from vfioctl.host.channel import Channel
from vfioctl.host.machine import Machine
from vfioctl.ops.keeper.client import Client
from vfioctl.ops.keeper.kept import DEFAULTS, Kept, Settings
from vfioctl.ops.keeper.server import Server

#: Seconds that one may take to let go of everything once nobody talks to it any more.
GRACE = 10.0


def start(machine: Machine, backend: str, settings: Settings = DEFAULTS) -> Client:
    """A keeper without a name and without groups. It is a child process, which ends when its client is closed."""
    here, there = channel.pair()
    with postponed() as mask:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                for stream in (0, 1, 2):
                    os.dup2(nowhere, stream)
                os.chdir("/")
                _close_others(there.fileno())
                # The soft limit is meant for select(2); what is mapped of files takes descriptors.
                most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
                server = Server(Kept(machine, backend, settings), Channel(there))
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                server.run()
            finally:
                os._exit(0)
    there.close()
    return Client(here, pid, machine.timeout)


@contextlib.contextmanager
def temporary(machine: Machine, backend: str) -> Iterator[Client]:
    """A keeper for as long as the block runs; it has let everything go when this returns, unless the kernel keeps it
    longer than GRACE seconds: then it is killed."""
    client = start(machine, backend)
    try:
        with client:
            yield client
            client.close()
    finally:
        end(client.pid)


def end(pid: int) -> None:
    """Waits for a keeper that nobody talks to any more."""
    deadline = time.monotonic() + GRACE
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.002)


def _close_others(kept: int) -> None:
    """What the process that started it has open is none of its business."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
