"""What a keeper is asked about the pages that devices write."""

from __future__ import annotations

from vfioctl.host.channel import Message
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.keeper.operation import Answer, Operation


def _dirty_start(kept: Kept, message: Message) -> Answer:
    kept.container.dirty_start()
    return Message({"page_size": kept.container.dirty_page})
    yield


def _dirty_read(kept: Kept, message: Message) -> Answer:
    return Message({"page_size": kept.container.dirty_page, "dirty": kept.container.dirty_read()})
    yield


def _dirty_stop(kept: Kept, message: Message) -> Answer:
    kept.container.dirty_stop()
    return Message({})
    yield


OPERATIONS: dict[str, Operation] = {
    "dirty-start": Operation(_dirty_start, {}, changes=True),
    "dirty-read": Operation(_dirty_read, {}, changes=True),
    "dirty-stop": Operation(_dirty_stop, {}, changes=True),
}
