"""Access control lists as the kernel keeps them, and as text."""

from __future__ import annotations

import pytest

from vfioctl.host.acl import decode, encode

#: What `setfacl -m u:1000:rw,g:36:r` makes of a file with mode 0600 (getfattr -n system.posix_acl_access -e hex).
TEXT = "u::rw-,u:1000:rw-,g::---,g:36:r--,m::rw-,o::---"
DATA = bytes.fromhex(
    "0200000001000600ffffffff02000600e803000004000000ffffffff080004002400000010000600ffffffff20000000ffffffff"
)


def test_both_ways() -> None:
    assert decode(DATA) == TEXT
    assert encode(TEXT) == DATA


@pytest.mark.parametrize("data", [b"", b"\x01\0\0\0", DATA[:-1]])
def test_a_form_that_is_not_known(data: bytes) -> None:
    with pytest.raises(ValueError, match="unknown form"):
        decode(data)


@pytest.mark.parametrize("text", ["", "u", "x::rw-", "u:alice:rw-", "m:1:rw-"])
def test_a_text_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        encode(text)
