"""What a keeper is asked on POWER only: windows of addresses, and EEH."""

from __future__ import annotations

from vfioctl.errors import Busy, UsageError
from vfioctl.host.channel import Message
from vfioctl.ops import eeh
from vfioctl.ops.backends.spapr import SpaprV2
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.keeper.operation import IOVA, SIZE, Answer, Field, Operation
from vfioctl.policy.sizes import format_iova
from vfioctl.uapi.spapr import EEH_ERR_FUNC


def _spapr(kept: Kept) -> SpaprV2:
    space = kept.container.space
    if not isinstance(space, SpaprV2):
        raise UsageError(
            f"the backend of the container is {space.name}, and only spapr-v2 has windows that can be made",
            hint="vfioctl container open NAME GROUP --backend spapr-v2",
            code="not-supported",
        )
    return space


def _create(kept: Kept, message: Message) -> Answer:
    fields = message.fields
    window = _spapr(kept).create_window(fields["page_size"], fields["size"], fields["levels"])
    return Message({"window": window.record()})
    yield


def _remove(kept: Kept, message: Message) -> Answer:
    space, start = _spapr(kept), message.fields["start"]
    window = space.find_window(start)
    inside = sum(run.pieces for run in kept.container.mappings.runs if start <= run.iova <= window.end)
    if inside:  # the kernel would drop them without a word
        raise Busy(
            f"the window at {format_iova(start)} has mappings: {inside}",
            hint="unmap them first",
            subject=format_iova(start),
            code="object-busy",
        )
    space.remove_window(window)
    return Message({})
    yield


def _eeh(kept: Kept, message: Message) -> Answer:
    state = eeh.operate(kept.container, message.fields["operation"])
    return Message({"groups": sorted(kept.container.members), "state": state})
    yield


def _inject(kept: Kept, message: Message) -> Answer:
    fields = message.fields
    eeh.inject(kept.container, fields["bits"], fields["function"], fields["address"], fields["mask"])
    return Message({})
    yield


OPERATIONS: dict[str, Operation] = {
    "window-create": Operation(_create, {"page_size": SIZE, "size": SIZE, "levels": SIZE}, changes=True),
    "window-remove": Operation(_remove, {"start": IOVA}, changes=True),
    "eeh": Operation(_eeh, {"operation": Field(str, choice=tuple(eeh.OPERATIONS))}, changes=True),
    "eeh-inject": Operation(
        _inject,
        {"bits": SIZE, "function": Field(str, choice=EEH_ERR_FUNC), "address": IOVA, "mask": IOVA},
        changes=True,
    ),
}
