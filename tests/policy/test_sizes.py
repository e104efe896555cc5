"""Sizes and IOVAs as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.errors import ExitStatus, UsageError
from vfioctl.policy.sizes import format_iova, format_size, parse_iova, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096", 4096),
        ("0x1000", 4096),
        ("0X1f", 31),
        ("4K", 4096),
        ("4k", 4096),
        ("1KiB", 1024),
        ("2M", 2 << 20),
        ("1MiB", 1 << 20),
        ("1G", 1 << 30),
        ("3GiB", 3 << 30),
        ("1T", 1 << 40),
        ("1P", 1 << 50),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "K",
            "iB",
            "1iB",
            "-1",
            "-4K",
            "+1",
            "1.5G",
            "1,5G",
            "1KB",
            "1B",
            "4 K",
            " 4K",
            "4K\n",
            "4KK",
        ),
        *(
            "0",
            "0x0",
            "0K",
            "00",
            "0x",
            "0x1K",
            "1_000",
            "\uff11",
            "\u0664",
            "1e6",
            "18446744073709551616",
            "16777216T",
        ),
        *("\x1b[31m1", "1\0", "--size", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "nan", "inf"),
    ],
)
def test_not_a_size(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.code == "size-invalid"
    assert caught.value.status == ExitStatus.USAGE
    assert caught.value.hint
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [("-4K", "cannot be negative"), ("1.5G", "1536M"), ("1KB", "write 1K"), ("0", "4096, 0x1000, 4K")],
)
def test_the_hint_fits_the_mistake(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.hint is not None
    assert words in caught.value.hint


@given(st.integers(1, 2**64 - 1))
def test_format_size_is_exact(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (4096, "4K"), (4097, "4097"), (2 << 20, "2M"), (3 << 29, "1536M"), (1 << 60, "1024P")],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "iova"),
    [
        ("0", 0),
        ("0x0", 0),
        ("0x100000", 1 << 20),
        ("100000", 1 << 20),
        ("FEE00000", 0xFEE00000),
        ("f" * 16, 2**64 - 1),
    ],
)
def test_iova_is_hexadecimal_with_or_without_prefix(text: str, iova: int) -> None:
    assert parse_iova(text) == iova
    assert parse_iova(format_iova(iova)) == iova


@pytest.mark.parametrize(
    "text", ["", "0x", "-1", "-0x1000", "1M", "0x1g", "1_0", " 1", "1\n", "f" * 17, "\uff11"]
)
def test_not_an_iova(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_iova(text)
    assert caught.value.code == "iova-invalid"
