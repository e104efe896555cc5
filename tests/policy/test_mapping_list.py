"""Lists of mappings as scripts write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.errors import UsageError
from vfioctl.policy.mapping import Want
from vfioctl.policy.mapping_list import parse


def test_words() -> None:
    text = """\
# two buffers and a file
0x100000 2M
-   4K  r

  1000 4096 w memfd\r
0x0 1M rw file 4K
- 2M rw hugepages-2M"""
    assert parse(text) == [
        Want(2 << 20, 0x100000, line=2),
        Want(4096, None, "r", line=3),
        Want(4096, 0x1000, "w", "memfd", line=5),
        Want(1 << 20, 0, "rw", "file", 4096, line=6),
        Want(2 << 20, None, "rw", "hugepages-2M", line=7),
    ]


def test_json_lines() -> None:
    text = """{"size": 4096, "iova": 0}
{"size": "2M", "iova": "0x100000", "prot": "r", "source": "file", "file_offset": 8192}"""
    assert parse(text) == [Want(4096, 0, line=1), Want(2 << 20, 0x100000, "r", "file", 8192, line=2)]
    assert parse('{"size": 4096, "iova": null}', prot="w", source="memfd") == [
        Want(4096, None, "w", "memfd", line=1)
    ]


def test_what_a_line_leaves_out() -> None:
    assert parse("- 4K\n- 4K rw anonymous", prot="r", source="file") == [
        Want(4096, None, "r", "file", line=1),
        Want(4096, None, "rw", "anonymous", line=2),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0x1000", "too few"),
        ("0 4K rw memfd 0 1", "too many"),
        ("0 4X", "is not a size"),
        ("zz 4K", "is not an IOVA"),
        ("0 0", "must be more than 0"),
        ("0 4K x", "no protection"),
        ("0 4K rw disk", "no source"),
        ("0 4K rw memfd 4K", "an offset is for files"),
        ("{", "not JSON"),
        ('{"size": 4096, "iov": 1}', "there is no key 'iov'"),
        ('{"iova": 4096}', "the size is missing"),
        ('{"size": true}', "not a number"),
        ('{"size": 1.5}', "not a number"),
        ('{"size": -1}', "not a number"),
        ('{"size": 0}', "must be more than 0"),
        ('{"size": 4096, "prot": ["r"]}', "no protection"),
        ('{"size": 4096, "source": 7}', "a source is a word"),
        ('{"size": 4096, "iova": 99999999999999999999}', "not a number"),
        ('{"size": 4096} {', "not JSON"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"0 4K\n\n{line}\n")
    assert caught.value.message.startswith("line 3: ")
    assert said in caught.value.message
    assert (caught.value.code, caught.value.details) == ("list-invalid", {"line": 3})


def test_an_empty_list() -> None:
    with pytest.raises(UsageError, match="names no mapping"):
        parse("# nothing\n\n")


@given(st.text(alphabet='{}[]":,0123456789xKMrw -#\n\tsizeova', max_size=60))
def test_anything_is_parsed_or_refused(text: str) -> None:
    try:
        assert parse(text)
    except UsageError as error:
        assert error.message.isprintable()


def test_deep_json_is_refused() -> None:
    with pytest.raises(UsageError):
        parse('{"size":' + "[" * 100000)
