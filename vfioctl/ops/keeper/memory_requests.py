"""What a keeper is asked about memory: to plan, map and unmap it, and for its bytes."""

from __future__ import annotations

import os

from vfioctl.host import memory
from vfioctl.host.channel import Message
from vfioctl.ops.keeper.kept import Kept, run_record
from vfioctl.ops.keeper.operation import (
    IOVA,
    MAYBE,
    MAYBE_SIZE,
    MOST_BYTES,
    NAME,
    SIZE,
    Answer,
    Field,
    Operation,
    malformed,
)
from vfioctl.policy.mapping import Want, page_size_of

#: The fields of vfioctl.policy.mapping.Want, in their order: size, iova, prot, source, offset, chunk, line.
_WANT = (SIZE, MAYBE, Field(str, choice=("r", "w", "rw")), NAME, IOVA, MAYBE_SIZE, MAYBE_SIZE)
#: Many of them, or one by its fields.
_MAPPING = {
    "wants": Field(list, optional=True),
    "size": MAYBE_SIZE,
    "iova": MAYBE,
    "chunk": MAYBE_SIZE,
    "prot": Field(str, optional=True, choice=("r", "w", "rw")),
}


def _plan(kept: Kept, message: Message) -> Answer:
    wants, fd = _wants(message)
    container = kept.container
    space, plan = container.mappings.plan(wants, fd, os.getpid() if kept.name else None)
    limits = memory.memlock()
    return Message(
        {
            "mappings": [
                [each.iova, each.want.size, each.want.prot, each.want.source, each.want.chunk, each.want.line]
                for each in plan.placed
            ],
            "problems": [
                {
                    "code": each.code,
                    "message": each.message,
                    "hint": each.hint,
                    "line": each.details.get("line"),
                }
                for each in plan.problems
            ],
            "untold": plan.untold,
            "cautions": plan.cautions,
            "entries": {"needed": plan.entries, "left": space.entries},
            "pinned": plan.pinned,
            "accounting": container.space.accounting,
            "locked": plan.locked,
            "memlock": None if limits.cap_ipc_lock else limits.limit,
            "page_sizes": space.page_sizes,
            "iova_ranges": space.ranges,
            "reserved_regions": list(space.reserved),
        }
    )
    yield


def _map(kept: Kept, message: Message) -> Answer:
    wants, fd = _wants(message)
    runs = yield from kept.container.mappings.map(wants, fd, os.getpid() if kept.name else None)
    return Message({"mappings": [run_record(run) for run in runs]})


def _wants(message: Message) -> tuple[list[Want], int | None]:
    """What is to be mapped, one thing or many, and the file for it."""
    fields = message.fields
    fd = message.fds[0] if message.fds else None
    if fields.get("wants") is None:
        if fields.get("size") is None:
            raise malformed("a size, or wants")
        return [
            Want(fields["size"], fields.get("iova"), fields.get("prot") or "rw", chunk=fields.get("chunk"))
        ], fd
    found = []
    for record in fields["wants"]:
        fits = isinstance(record, list) and len(record) == len(_WANT)
        if not fits or not all(field.accepts(value) for field, value in zip(_WANT, record, strict=True)):
            raise malformed("a mapping is not what it should be")
        found.append(Want(*record))
        page_size_of(found[-1].source)
    if not found:
        raise malformed("no mapping")
    return found, fd


def _unmap(kept: Kept, message: Message) -> Answer:
    mappings = kept.container.mappings
    before = mappings.size
    if message.fields.get("all"):
        yield from mappings.unmap_all()
    elif message.fields.get("iova") is None:
        raise malformed("an iova, or all")
    else:
        yield from mappings.unmap(message.fields["iova"], message.fields.get("size"))
    return Message({"unmapped": before - mappings.size})


def _read(kept: Kept, message: Message) -> Answer:
    if message.fields["size"] > MOST_BYTES:
        raise malformed("too many bytes")
    return Message({}, kept.container.mappings.read(message.fields["iova"], message.fields["size"]))
    yield


def _write(kept: Kept, message: Message) -> Answer:
    kept.container.mappings.write(message.fields["iova"], message.data)
    return Message({})
    yield


OPERATIONS: dict[str, Operation] = {
    "plan": Operation(_plan, _MAPPING, fds=(0, 1)),
    "map": Operation(_map, _MAPPING, changes=True, fds=(0, 1)),
    "unmap": Operation(
        _unmap,
        {"iova": MAYBE, "size": MAYBE_SIZE, "all": Field(bool, optional=True)},
        changes=True,
    ),
    "read": Operation(_read, {"iova": IOVA, "size": SIZE}),
    "write": Operation(_write, {"iova": IOVA}),
}
