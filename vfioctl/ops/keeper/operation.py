"""What an operation of a keeper is: a generator over what is kept, and the fields that a request for it has."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from vfioctl.errors import UsageError
from vfioctl.host.channel import Message
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.mappings import Progress

#: Bytes of memory that one message brings.
MOST_BYTES = 1 << 20

Answer = Generator[Progress, None, Message]


class Field(NamedTuple):
    """A field of a request: its type, whether it may be absent, and which values it takes besides."""

    kind: type
    optional: bool = False
    least: int = 0
    choice: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a value from outside is one."""
        if self.optional and value is None:
            return True
        if type(value) is not self.kind:  # JSON's true is no number
            return False
        if isinstance(value, int):
            return self.kind is bool or self.least <= value < 1 << 64
        return not self.choice or value in self.choice


class Operation(NamedTuple):
    """``work`` yields the progress of what takes long, and returns the answer. ``changes``: it waits for others that
    change the container. ``fds``: how many descriptors it may bring."""

    work: Callable[[Kept, Message], Answer]
    fields: Mapping[str, Field]
    changes: bool = False
    fds: tuple[int, ...] = (0,)


NAME = Field(str)
SIZE = Field(int, least=1)
IOVA = Field(int)
MAYBE = Field(int, optional=True)
MAYBE_SIZE = Field(int, optional=True, least=1)


def malformed(what: str) -> UsageError:
    """The refusal of a request that no command of vfioctl makes."""
    return UsageError(f"a request of a container is malformed: {what}", code="malformed-request")
