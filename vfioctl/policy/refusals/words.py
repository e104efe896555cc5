"""Refusals as data: words with gaps, the state in which they apply, and the files that prove it (floor 3, pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.model import Look
from vfioctl.policy.refusals.gaps import gaps
from vfioctl.policy.refusals.state import Refusal


class When(NamedTuple):
    """A condition on what is known: ``words`` complete a sentence that begins with "if"."""

    words: str
    holds: Callable[[Refusal], bool]


class Meaning(NamedTuple):
    """What a refusal means: cause, cure and stable code; ``when`` it means that, None for the last of several."""

    message: str
    code: str
    hint: str
    kind: type[VfioctlError]
    looks: tuple[Look, ...]
    when: When | None

    def error(self, refusal: Refusal) -> VfioctlError:
        """The error, with the gaps filled in."""
        known = gaps(refusal)
        return self.kind(
            self.message.format_map(known),
            code=self.code,
            hint=self.hint.format_map(known),
            errno=refusal.number or None,
        )


#: What a call's errno may mean: the first that applies does.
Meanings = tuple[Meaning, ...]

#: The same, by (call, errno).
Table = dict[tuple[str, int], Meanings]


def says(
    message: str,
    *,
    code: str,
    hint: str,
    kind: type[VfioctlError] = KernelRefusal,
    look: Sequence[Look] = (),
    when: When | None = None,
) -> Meanings:
    """One meaning. The gaps are those of :func:`vfioctl.policy.refusals.gaps.gaps`."""
    return (Meaning(message, code, hint, kind, tuple(look), when),)


def only(when: When, meanings: Meanings) -> Meanings:
    """The last of ``meanings``, on a condition; others have theirs already."""
    return (*meanings[:-1], meanings[-1]._replace(when=when))


def meant(meanings: Meanings, refusal: Refusal) -> Meaning:
    """What a refusal means here."""
    return next(each for each in meanings if each.when is None or each.when.holds(refusal))
