"""A keeper at work: one process, one thread, which answers its clients until it is told to end.

What changes the container is done one request after the other, step by step; what only looks, and the memory of
mappings, is answered in between. A client that breaks the rules is hung up on; one that goes away has its unfinished
request undone.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from vfioctl.errors import ExitStatus, KernelRefusal, PermissionDenied, VfioctlError
from vfioctl.host import memory
from vfioctl.host.channel import Channel, Malformed, Message
from vfioctl.host.ioctl import CallError
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.keeper.operation import Answer, Operation
from vfioctl.ops.keeper.requests import check

#: More clients than this wait until one goes.
MOST_CLIENTS = 64


class _Client:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stranger = channel.peer.uid not in (0, os.geteuid())
        self.busy = False
        self.gone = False


class _Request(NamedTuple):
    client: _Client
    message: Message
    work: Answer

    def close(self) -> None:
        """Undoes what is half done."""
        self.work.close()
        _close(self.message)


class Server:
    """Serves the clients of a keeper; the first one is who started it."""

    def __init__(self, kept: Kept, first: Channel) -> None:
        self._kept = kept
        self._clients: dict[int, _Client] = {}
        self._queue: deque[_Request] = deque()
        self._asked_to_end = False
        self._rested = False
        self._welcome(first)

    def run(self) -> None:
        """Until somebody asks to close it, a signal asks for the end, or there is nobody who could ask for anything."""
        wakeup, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(end)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(name, self._end)
        try:
            while not self._asked_to_end and not self._kept.ending and (self._clients or self._kept.listener):
                self._wait(wakeup)
                self._step()
        finally:
            while self._queue:
                self._queue.popleft().close()
            self._kept.close()

    def _end(self, number: int, frame: object) -> None:
        self._asked_to_end = True

    def _wait(self, wakeup: int) -> None:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        listener = self._kept.listener
        if listener is not None and len(self._clients) < MOST_CLIENTS:
            poll.register(listener, select.POLLIN)
        for fd, client in self._clients.items():
            poll.register(
                fd, (0 if client.busy else select.POLLIN) | (0 if client.channel.sent else select.POLLOUT)
            )
        # A group is not let go under the hands of a request that is half done.
        requests = set(self._kept.requested.waiting()) if not self._queue else set()
        for fd in requests:
            poll.register(fd, select.POLLIN)
        found = poll.poll(None if self._rested and not self._queue else 0)
        if not (found or self._queue or self._rested):
            memory.load()  # nobody waits: the first who wants memory is not to wait for it
            self._rested = True
        for fd, events in found:
            if listener is not None and fd == listener.fileno():
                self._accept(listener)
            elif fd in requests:
                self._kept.requested.arrived(fd)
            elif fd in self._clients:
                self._serve(self._clients[fd], events)
            elif fd == wakeup:
                with suppress(BlockingIOError):
                    os.read(wakeup, 4096)

    def _accept(self, listener: Any) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # no descriptors left: who waits is seen again at once, and again
            time.sleep(0.1)
            return
        self._welcome(Channel(sock))

    def _welcome(self, channel: Channel) -> None:
        self._clients[channel.fileno()] = _Client(channel)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & select.POLLOUT:
                client.channel.flush()
            if events & select.POLLIN and not client.busy:
                message = client.channel.receive()
                if message is not None:
                    self._take(client, message)
            elif events & (select.POLLHUP | select.POLLERR):
                self._hang_up(client)
        except (EOFError, Malformed, OSError):
            self._hang_up(client)

    def _take(self, client: _Client, message: Message) -> None:
        operation: Operation | None = None
        try:
            if client.stranger:
                raise PermissionDenied("the container is another user's")
            operation = check(message)
            work = operation.work(self._kept, message)
        except VfioctlError as error:
            self._answer(client, _refusal(error))
        finally:
            if operation is None:
                _close(message)
        if operation is None:
            return
        if operation.changes:
            client.busy = True
            self._queue.append(_Request(client, message, work))
        else:
            self._advance(client, work)
            _close(message)

    def _step(self) -> None:
        """Does a step of the request that is first in the queue."""
        if self._queue:
            request = self._queue[0]
            if request.client.gone or self._advance(request.client, request.work):
                self._queue.popleft().close()
                request.client.busy = False

    def _advance(self, client: _Client, work: Answer) -> bool:
        """Does a step, and answers; whether it was the last."""
        try:
            stage, done, total = next(work)
        except StopIteration as end:
            self._answer(client, Message({"ok": dict(end.value.fields)}, end.value.data, end.value.fds))
            return True
        except VfioctlError as error:
            self._answer(client, _refusal(error))
            return True
        except OSError as error:
            told = str(error) if isinstance(error, CallError) else error.strerror or str(error)
            self._answer(client, _refusal(KernelRefusal(told, errno=error.errno, code="kernel")))
            return True
        except Exception as error:  # noqa: BLE001 - a bug must not take everybody's mappings with it
            self._answer(client, _refusal(VfioctlError(f"{type(error).__name__}: {error}", code="bug")))
            return True
        if client.channel.sent:  # one who does not listen is not told everything
            self._answer(client, Message({"progress": [stage, done, total]}))
        return False

    def _answer(self, client: _Client, message: Message) -> None:
        try:
            client.channel.queue(message)
        except OSError as error:  # no descriptors left for the copies
            client.channel.queue(_refusal(KernelRefusal(f"dup: {error.strerror}", errno=error.errno)))
        with suppress(OSError):
            client.channel.flush()

    def _hang_up(self, client: _Client) -> None:
        client.gone = True
        self._clients.pop(client.channel.fileno(), None)
        client.channel.close()


def _close(message: Message) -> None:
    for fd in message.fds:
        os.close(fd)


def _refusal(error: VfioctlError) -> Message:
    return Message(
        {
            "error": {
                "status": int(error.status),
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
                "errno": error.errno,
                "subject": error.subject,
                "details": dict(error.details),
            }
        }
    )


def error_of(record: dict[str, Any]) -> VfioctlError:
    """The error that a refusal tells."""
    status = ExitStatus(record.pop("status"))
    kind = next((kind for kind in VfioctlError.__subclasses__() if kind.status == status), VfioctlError)
    return kind(status=status, **record)
