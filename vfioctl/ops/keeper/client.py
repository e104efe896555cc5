"""A keeper as its clients see it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from vfioctl.errors import DeadlinePassed, VfioctlError
from vfioctl.host.bounded import place_of
from vfioctl.host.channel import Channel, Malformed, Message
from vfioctl.ops.keeper.kept import from_record
from vfioctl.ops.keeper.operation import MOST_BYTES
from vfioctl.ops.keeper.server import error_of

#: Called with the stage ("populate", "map", "unmap"), what is done of it and how much it is in all.
Progress = Callable[[str, int, int], None]


class Client:
    """A connection to a keeper, whose process is ``pid``. ``timeout``: seconds that it may give no sign of life."""

    def __init__(self, channel: Channel, pid: int, timeout: float) -> None:
        self._channel = channel
        self.pid = pid
        self.timeout = timeout
        self._late: DeadlinePassed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def call(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        data: bytes = b"",
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Message:
        """The answer; its descriptors are the caller's. Raises the VfioctlError that the keeper has answered, and
        DeadlinePassed when it gives no sign of life."""
        if self._late is not None:  # its answer would be taken for that to another request
            raise self._late
        deadline = time.monotonic() + self.timeout
        try:
            self._channel.queue(Message({"op": op, **(fields or {})}, data, tuple(fds)))
            while not self._channel.flush():
                self._wait(select.POLLOUT, deadline)
            while True:
                message = self._channel.receive()
                if message is None:
                    self._wait(select.POLLIN, deadline)
                elif "progress" in message.fields:
                    deadline = time.monotonic() + self.timeout
                    if progress is not None:
                        progress(*message.fields["progress"])
                elif "error" in message.fields:
                    raise error_of(message.fields["error"])
                else:
                    return Message(message.fields["ok"], message.data, message.fds)
        except (EOFError, Malformed, ConnectionError) as error:
            raise VfioctlError(
                f"process {self.pid}, which kept the container, has ended: nothing is mapped any more",
                hint="it was closed or killed meanwhile; the system's log may say why",
                code="keeper-gone",
            ) from error

    def _wait(self, event: int, deadline: float | None) -> None:
        poll = select.poll()
        poll.register(self._channel, event)
        if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            self._late = DeadlinePassed(
                f"the container has not answered within {self.timeout:g} s: {place_of(self.pid)}",
                hint="the kernel keeps it waiting, or it is busy with another request; what is not done when vfioctl "
                "ends is undone",
                subject=str(self.pid),
            )
            raise self._late

    def show(self) -> dict[str, Any]:
        """The record of the container (``Kept.record``)."""
        return from_record(self.call("show").fields)

    def open_device(self, name: str) -> int:
        """A descriptor of a device, the caller's own copy."""
        (fd,) = self.call("open-device", {"device": name}).fds
        return fd

    def keep(self, name: str, fd: int) -> None:
        """Lets the keeper keep a copy of a descriptor under a name, in the place of an earlier one."""
        self.call("keep", {"name": name}, fds=[fd])

    def kept(self, prefix: str) -> dict[str, int]:
        """Copies of what is kept under names that begin so."""
        answer = self.call("kept", {"prefix": prefix})
        return dict(zip(answer.fields["names"], answer.fds, strict=True))

    def drop(self, prefix: str) -> None:
        """Lets go what is kept under names that begin so."""
        self.call("drop", {"prefix": prefix})

    def descriptors(self) -> dict[str, int]:
        """Copies of the container's own descriptors, its groups' and its open devices'."""
        answer = self.call("descriptors")
        return dict(zip(answer.fields["names"], answer.fds, strict=False))

    def read(self, iova: int, size: int) -> bytes:
        """Bytes of mapped memory."""
        return b"".join(
            self.call("read", {"iova": iova + done, "size": min(MOST_BYTES, size - done)}).data
            for done in range(0, size, MOST_BYTES)
        )

    def write(self, iova: int, data: bytes) -> None:
        """Stores bytes in mapped memory."""
        for done in range(0, len(data), MOST_BYTES):
            self.call("write", {"iova": iova + done}, data[done : done + MOST_BYTES])

    def close(self) -> None:
        """Ends the keeper; it has let everything go when this returns."""
        self.call("close")
        self.wait_for_end(time.monotonic() + self.timeout)

    def wait_for_end(self, deadline: float | None = None) -> None:
        """Until the keeper hangs up, which is the last thing that it does. Raises DeadlinePassed."""
        while True:
            try:
                if self._channel.receive() is None:
                    self._wait(select.POLLIN, deadline)
            except (EOFError, Malformed, OSError):
                return


def close_all(fds: Mapping[str, int]) -> None:
    """Closes copies of descriptors."""
    for fd in fds.values():
        os.close(fd)
