"""A stand-in for ioctl that notes what it is asked and gives prepared answers."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from vfioctl.host.ioctl import CallError

#: The bytes that the kernel writes back, the errno with which it refuses, or what does more than that.
Answer = bytes | int | Callable[[bytearray], None]


class Answers:
    """An answer for each call, in turn; nothing when they are used up. ``seen`` holds (name, argument)."""

    def __init__(self, *answers: Answer, result: int = 0) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, Any]] = []
        self.result = result

    def __call__(self, fd: int, request: Any, argument: int | bytearray = 0) -> int:
        self.seen.append((request.name, bytes(argument) if isinstance(argument, bytearray) else argument))
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, int):
                raise CallError(request.name, answer)
            assert isinstance(argument, bytearray)
            if isinstance(answer, bytes):
                answer = answer[: len(argument)]
                argument[: len(answer)] = answer
            else:
                answer(argument)
        return self.result


def fill(argument: bytearray, pointer: int, data: bytes) -> None:
    """Write to where the pointer at offset ``pointer`` of an argument points."""
    ctypes.memmove(struct.unpack_from("=Q", argument, pointer)[0], data, len(data))


def pointed(argument: bytes, pointer: int, size: int) -> bytes:
    """What the pointer at offset ``pointer`` of an argument points to, while it still does."""
    return ctypes.string_at(struct.unpack_from("=Q", argument, pointer)[0], size)
