"""A call that the kernel refuses, and what vfioctl makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vfioctl.errors import VfioctlError
from vfioctl.host.ioctl import CallError
from vfioctl.policy.refusals import State, explain


def refused(
    call: str,
    names: str,
    codes: str,
    function: Callable[..., object],
    *arguments: Any,
    state: State | None = None,
) -> VfioctlError:
    """Do ``function(*arguments)``: ``call`` has to be refused with one of the errnos ``names``, and that has to be
    explained with one of ``codes``. Returns the explanation."""
    with pytest.raises(CallError) as caught:
        function(*arguments)
    path = caught.value.filename if isinstance(caught.value.filename, str) else None
    error = explain(caught.value.call, caught.value.errno or 0, state or State(), path)
    assert caught.value.call == call
    assert error.errno_name in names.split(), f"{call}: {error.errno_name}"
    assert error.code in codes.split(), error.message
    assert error.message and error.hint
    return error
