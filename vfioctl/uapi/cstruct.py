"""C structs of the kernel's interface, declared once and checked by mypy (floor 1).

    class vfio_group_status(CStruct, format="=II"):
        argsz: int = 0
        flags: int = 0

The format begins with ``=`` and writes its padding out (``4x``), because native alignment differs between
machines (i386 aligns u64 to 4 bytes) while the kernel's 64-bit layout does not.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(kw_only_default=True)
class CStruct:
    """A record of integers with a fixed layout; a field that is not given is 0, ``argsz`` is the size.

    A kernel that knows a shorter struct is asked with the size of that, and ignores the bytes behind it.
    """

    layout: ClassVar[struct.Struct]
    fields: ClassVar[tuple[str, ...]]
    size_of: ClassVar[int]
    #: The field in which the struct states its own size.
    size_field: ClassVar[str] = "argsz"

    def __init_subclass__(cls, format: str) -> None:
        if not format.startswith("="):
            raise TypeError(f"{cls.__name__}: {format!r} does not begin with '='")
        cls.layout = struct.Struct(format)
        cls.fields = tuple(cls.__annotations__)
        cls.size_of = cls.layout.size

    def __init__(self, **fields: int) -> None:
        for name in self.fields:
            setattr(self, name, fields.pop(name, self.size_of if name == self.size_field else 0))
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(fields)}")

    def pack(self, tail: bytes | bytearray = b"") -> bytearray:
        """The bytes the kernel wants, followed by ``tail``; mutable, for ioctls that answer in place."""
        return bytearray(self.layout.pack(*(getattr(self, name) for name in self.fields)) + tail)

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read the struct at ``offset`` bytes; ``struct.error`` when the buffer is too short."""
        return cls(**dict(zip(cls.fields, cls.layout.unpack_from(buffer, offset), strict=True)))

    def values(self) -> dict[str, int]:
        """Every field by its C name."""
        return {name: getattr(self, name) for name in self.fields}

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.pack() == other.pack()

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name):#x}" for name in self.fields)
        return f"{type(self).__name__}({values})"


class s32(CStruct, format="=i"):
    """An int argument, such as a file descriptor."""

    value: int = 0


class u32(CStruct, format="=I"):
    """A lone __u32, such as the ``argsz`` that every VFIO struct begins with."""

    value: int = 0
