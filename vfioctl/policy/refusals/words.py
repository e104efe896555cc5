"""Refusals that take no decision: words with gaps for what is known (floor 3, pure)."""

from __future__ import annotations

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.policy.refusals.state import Refusal, Say, place


def says(message: str, *, code: str, hint: str, kind: type[VfioctlError] = KernelRefusal) -> Say:
    """What to say for a refusal. ``{group}``, ``{device}``, ``{path}``, ``{place}`` (of a mapping), ``{holders}`` (who
    has it open, after a colon) and ``{call}`` are filled in; ``{GROUP}`` and ``{DEVICE}`` are the arguments of a
    command."""

    def say(refusal: Refusal) -> VfioctlError:
        state = refusal.state
        known = {
            "group": refusal.group,
            "GROUP": refusal.argument,
            "device": state.device or "the device",
            "DEVICE": state.device or "DEVICE",
            "path": refusal.path or "the node",
            "place": place(state),
            "holders": f": {', '.join(state.holders)}" if state.holders else "",
            "call": refusal.call,
        }
        return kind(message.format_map(known), code=code, hint=hint.format_map(known))

    return say
