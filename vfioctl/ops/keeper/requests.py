"""What a keeper is asked, and how it does it.

A request has the fields that its operation wants, and no others: it is refused before anything is done.
"""

from __future__ import annotations

import os

from vfioctl.host import channel
from vfioctl.host.channel import Message
from vfioctl.ops.keeper import dirty_requests, iommufd_requests, memory_requests, spapr_requests
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.keeper.operation import IOVA, MOST_BYTES, NAME, Answer, Field, Operation, malformed


def check(message: Message) -> Operation:
    """The operation that a message asks for. Raises UsageError for anything that it should not be."""
    operation = OPERATIONS.get(str(message.fields.get("op")))
    if operation is None:
        raise malformed("no such operation")
    given = {name: value for name, value in message.fields.items() if name != "op"}
    for name in given:
        if name not in operation.fields:
            raise malformed(f"the field {name!r} is not known")
    for name, field in operation.fields.items():
        if not field.accepts(given.get(name)):
            raise malformed(f"the field {name!r} is missing or not what it should be")
    if len(message.fds) not in operation.fds:
        raise malformed(f"{operation.fds[-1]} descriptors are wanted")
    if len(message.data) > MOST_BYTES:
        raise malformed("too many bytes")
    return operation


def _show(kept: Kept, message: Message) -> Answer:
    return Message(kept.record())
    yield


def _add(kept: Kept, message: Message) -> Answer:
    groups = message.fields["groups"]
    if not all(type(number) is int and number >= 0 for number in groups):
        raise malformed("groups are numbers")
    kept.add(groups)
    return Message({"groups": sorted(kept.container.members)})
    yield


def _remove(kept: Kept, message: Message) -> Answer:
    kept.remove(message.fields["group"])
    return Message({"groups": sorted(kept.container.members)})
    yield


def _open(kept: Kept, message: Message) -> Answer:
    return Message({}, fds=(kept.open_device(message.fields["device"]),))
    yield


def _keep(kept: Kept, message: Message) -> Answer:
    kept.keep(message.fields["name"], os.dup(message.fds[0]))
    return Message({})
    yield


def _kept(kept: Kept, message: Message) -> Answer:
    found = kept.found(message.fields["prefix"])
    if len(found) > channel.MOST_DESCRIPTORS:
        raise malformed(f"more than {channel.MOST_DESCRIPTORS} descriptors at once")
    return Message({"names": list(found)}, fds=tuple(found.values()))
    yield


def _drop(kept: Kept, message: Message) -> Answer:
    return Message({"dropped": kept.drop(message.fields["prefix"])})
    yield


def _descriptors(kept: Kept, message: Message) -> Answer:
    found = kept.descriptors()
    return Message({"names": list(found)}, fds=tuple(found.values())[: channel.MOST_DESCRIPTORS])
    yield


def _publish(kept: Kept, message: Message) -> Answer:
    kept.publish(message.fields["path"], message.fields["name"])
    return Message({"pid": os.getpid()})
    yield


def _close(kept: Kept, message: Message) -> Answer:
    kept.ending = True
    return Message({})
    yield


OPERATIONS: dict[str, Operation] = {
    "show": Operation(_show, {}),
    "add": Operation(_add, {"groups": Field(list)}, changes=True),
    "remove": Operation(_remove, {"group": IOVA}, changes=True),
    "open-device": Operation(_open, {"device": NAME}, changes=True),
    "keep": Operation(_keep, {"name": NAME}, fds=(1,)),
    "kept": Operation(_kept, {"prefix": NAME}),
    "drop": Operation(_drop, {"prefix": NAME}),
    "descriptors": Operation(_descriptors, {}),
    "publish": Operation(_publish, {"path": NAME, "name": NAME}, changes=True),
    "close": Operation(_close, {}, changes=True),
    **memory_requests.OPERATIONS,
    **iommufd_requests.OPERATIONS,
    **dirty_requests.OPERATIONS,
    **spapr_requests.OPERATIONS,
}
