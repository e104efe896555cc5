"""Archives that an attacker has made, and all that a snapshot can be."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfioctl.errors import UsageError
from vfioctl.host.archive import Entry, Kind, compression_of, entry, pack, unpack
from vfioctl.host.archive.entry import BadArchive, checked
from vfioctl.host.archive.streams import zstd


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


def tar(*members: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for each in members:
            archive.addfile(each, io.BytesIO(bytes(each.size)))
    return file.getvalue()


def device(name: str, kind: bytes) -> tarfile.TarInfo:
    found = member(name, kind)
    found.devmajor, found.devminor = 1, 3
    return found


def with_size(data: bytes, field: bytes) -> bytes:
    """The first header with another size, and its checksum put right."""
    header = bytearray(data[:512])
    header[124:136] = field.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def pax(records: bytes) -> bytes:
    header = with_size(tar(member("x", b"x")), b"%011o" % len(records))[:512]
    return header + records.ljust(512, b"\0") + tar(member("file"))


EVIL: dict[str, bytes] = {
    "absolute": tar(member("/etc/passwd")),
    "up": tar(member("../x")),
    "up inside": tar(member("a/../../x")),
    "a dot": tar(member("a/./x")),
    "nothing between": tar(member("a//x")),
    "link out": tar(member("a", tarfile.SYMTYPE, "../x")),
    "absolute link": tar(member("a", tarfile.SYMTYPE, "/etc/passwd")),
    "link up late": tar(member("d/e/link", tarfile.SYMTYPE, "x/../../../..")),
    "link to nothing": tar(member("a", tarfile.SYMTYPE, "")),
    "link to here": tar(member("a", tarfile.SYMTYPE, ".")),
    "through a link": tar(member("a", tarfile.SYMTYPE, "b"), member("a/x")),
    "chained links": tar(
        member("d", tarfile.DIRTYPE),
        member("d/a", tarfile.SYMTYPE, "../b"),
        member("b", tarfile.SYMTYPE, "../c"),
    ),
    "over a link": tar(member("a", tarfile.SYMTYPE, "b"), member("a")),
    "link over a file": tar(member("a"), member("a", tarfile.SYMTYPE, "b")),
    "below a file": tar(member("a"), member("a/b")),
    "twice": tar(member("a"), member("a")),
    "twice by another name": tar(member("a"), member("./a")),
    "directory twice": tar(member("a", tarfile.DIRTYPE), member("a", tarfile.DIRTYPE)),
    "file where a directory is": tar(member("a/b"), member("a")),
    "hard link": tar(member("a"), member("b", tarfile.LNKTYPE, "a")),
    "hard link out": tar(member("b", tarfile.LNKTYPE, "/etc/passwd")),
    "character device": tar(device("null", tarfile.CHRTYPE)),
    "block device": tar(device("sda", tarfile.BLKTYPE)),
    "fifo": tar(device("fifo", tarfile.FIFOTYPE)),
    "contiguous": tar(member("a", tarfile.CONTTYPE)),
    "sparse": tar(member("a", b"S")),
    "unknown": tar(member("a", b"Z")),
    "a directory with bytes": with_size(tar(member("a", tarfile.DIRTYPE)), b"00000001000"),
    "long name": tar(member("a/" * 600 + "b")),
    "long part": tar(member("a" * 300)),
    "deep": tar(member("a/" * 70 + "b")),
    "nul in a name": pax(b"15 path=a\0/../b\n"),
    "giant member": with_size(tar(member("a")), b"77777777777"),
    "negative size": with_size(tar(member("a")), b"\xff" * 12),
    "size of base 256": with_size(tar(member("a")), b"\x80" + bytes(10) + b"\x08"),
    "size that is none": with_size(tar(member("a")), b"-1"),
    "pax size": pax(b"21 size=99999999999\n\n"[:21]),
    "pax sparse": pax(b"22 GNU.sparse.major=1\n"),
    "pax that lies": pax(b"99 path=a\n"),
    "pax of no length": pax(b"0 path=a\n"),
    "pax without a length": pax(b"path=a\n"),
    "pax out": pax(b"12 path=../\n"),
    "long pax": with_size(tar(member("x", b"x")), b"00001000000") + bytes(1 << 18),
    "bad checksum": b"x" + tar(member("a"))[1:],
    "text": b"this is no archive" * 100,
    "short": b"x",
    "nothing": b"",
    "cut": tar(member("a", size=5000))[:2048],
    "no end": tar(member("a"))[:512],
    "cut gzip": gzip.compress(tar(member("a", size=5000)))[:60],
    "gzip of nothing": gzip.compress(b""),
    "gzip with more behind it": gzip.compress(tar(member("a"))) + b"more",
    "two gzips": gzip.compress(tar(member("a"))) * 2,
    "damaged gzip": gzip.compress(tar(member("a")))[:-8] + bytes(8),
    "garbage that says it is gzip": b"\x1f\x8b" + bytes(600),
    "garbage that says it is zstd": b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4,
}


@pytest.mark.parametrize("name", EVIL)
def test_what_an_attacker_makes(name: str, tmp_path: Path) -> None:
    for index, data in enumerate((EVIL[name], gzip.compress(EVIL[name]))):
        path, directory = tmp_path / f"{index}.tar.gz", tmp_path / f"{index}" / "in"
        path.write_bytes(data)
        directory.mkdir(parents=True)
        with pytest.raises(BadArchive) as caught:
            unpack(str(path), str(directory), 30)
        assert (caught.value.status, caught.value.code) == (2, "archive")
        assert os.listdir(directory.parent) == ["in"]
        assert not any(each.is_symlink() for each in directory.rglob("*"))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_bombs(kind: str, tmp_path: Path) -> None:
    """Half a gigabyte of zeros behind a first member; it stops at the limit, soon."""
    if kind == "zstd" and zstd() is None:
        pytest.skip("zstd is not installed")
    start = tar(member("a"))[:1024].rstrip(b"\0").ljust(512, b"\0")
    zeros = bytes(1 << 20)
    path = tmp_path / "bomb"
    with path.open("wb") as file:
        if kind == "gzip":
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
                packed.write(start)
                for _ in range(512):
                    packed.write(zeros)
        else:
            child = subprocess.Popen([str(zstd()), "-q"], stdin=subprocess.PIPE, stdout=file)
            assert child.stdin is not None
            child.stdin.write(start)
            for _ in range(512):
                child.stdin.write(zeros)
            child.stdin.close()
            assert child.wait(60) == 0
    assert path.stat().st_size < 3 << 20
    directory = tmp_path / "in"
    directory.mkdir()
    began = time.monotonic()
    with pytest.raises(BadArchive, match="more than any snapshot"):
        unpack(str(path), str(directory), 60)
    assert time.monotonic() - began < 60


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, directory = tmp_path / "a.tar.gz", tmp_path / "in"
    directory.mkdir()
    path.write_bytes(gzip.compress(tar(*(member(f"f{index}") for index in range(300)))))
    monkeypatch.setattr("vfioctl.host.archive.tar.MEMBERS", 200)
    with pytest.raises(BadArchive, match="more than 200 members"):
        unpack(str(path), str(directory), 30)
    with path.open("ab") as file:
        file.truncate(entry.ARCHIVE + 1)
    with pytest.raises(BadArchive, match="larger than any"):
        unpack(str(path), str(directory), 30)


def test_a_million_headers_do_not_keep_it_busy(tmp_path: Path) -> None:
    """Long names without a member, one after the other: tarfile goes down a level for each."""
    header = with_size(tar(member("x", b"x")), b"00000000000")[:512]
    path, directory = tmp_path / "a.tar.gz", tmp_path / "in"
    path.write_bytes(gzip.compress(header * 300_000, 1))
    directory.mkdir()
    with pytest.raises(BadArchive):
        unpack(str(path), str(directory), 60)


def test_time_runs_out(tmp_path: Path) -> None:
    path, directory = tmp_path / "a.tar.gz", tmp_path / "in"
    path.write_bytes(gzip.compress(tar(member("a"))))
    directory.mkdir()
    with pytest.raises(BadArchive, match="too long"):
        unpack(str(path), str(directory), -1)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/zero"):
        with pytest.raises(BadArchive, match="no regular file"):
            unpack(path, str(tmp_path), 30)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tar_itself_writes(format: int, tmp_path: Path) -> None:
    long = "sys/devices/" + "pci0000:00/" * 8 + "name"
    members = [
        member(".", tarfile.DIRTYPE),
        member("./top", tarfile.DIRTYPE),
        member("./top/file", size=3),
        member(long, size=1000),
        member("top/link", tarfile.SYMTYPE, f"../{long}"[:99]),
        member("top/mark", tarfile.SYMTYPE, "mark"),
    ]
    path, directory = tmp_path / "a.tar", tmp_path / "in"
    path.write_bytes(tar(*members, format=format))
    directory.mkdir()
    unpack(str(path), str(directory), 30)
    assert (directory / "top/file").read_bytes() == bytes(3)
    assert (directory / long).stat().st_size == 1000
    assert os.readlink(directory / "top/link") == f"../{long}"[:99]
    with pytest.raises(OSError, match="symbolic links"):
        (directory / "top/mark").read_text()
    assert {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_dir()} == {0o700}


parts = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda part: part not in (".", "..") and len(part.encode()) < 200)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    found: dict[str, Entry] = {}
    for _ in range(draw(st.integers(0, 12))):
        path = "/".join(draw(st.lists(parts, min_size=1, max_size=6)))
        above = {path.rsplit("/", depth)[0] for depth in range(path.count("/") + 1)}
        if path in found or any(found[each].kind is not Kind.DIRECTORY for each in above & set(found)):
            continue
        if any(other.startswith(f"{path}/") for other in found):
            continue
        kind = draw(st.sampled_from(Kind))
        data = draw(st.binary(max_size=2000)) if kind is Kind.FILE else b""
        if kind is Kind.LINK:
            target = [
                "..",
            ] * draw(st.integers(0, path.count("/"))) + draw(st.lists(parts, min_size=1, max_size=4))
            data = "/".join(target).encode()
        found[path] = Entry(path, kind, data)
    return [found[path] for path in sorted(found)]


def read_back(directory: str, listed: Iterable[Entry]) -> list[Entry]:
    found = []
    for each in listed:
        path = os.path.join(directory, each.path)
        if each.kind is Kind.LINK:
            found.append(Entry(each.path, Kind.LINK, os.fsencode(os.readlink(path))))
        elif os.path.isdir(path):
            found.append(Entry(each.path, Kind.DIRECTORY))
        else:
            with open(path, "rb") as file:
                found.append(Entry(each.path, Kind.FILE, file.read()))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees(), st.sampled_from(["gzip", "zstd"]))
def test_what_is_packed_is_unpacked(tree: list[Entry], compression: str) -> None:
    if compression == "zstd" and zstd() is None:
        compression = "gzip"
    with tempfile.TemporaryDirectory() as scratch:
        path, directory = os.path.join(scratch, "a.tar.gz"), os.path.join(scratch, "in")
        os.mkdir(directory)
        with open(path, "wb") as file:
            file.write(pack(tree, compression, 30))
        unpack(path, directory, 30)
        assert read_back(directory, tree) == tree


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_bytes_that_have_been_changed_do_no_harm(data: st.DataObject) -> None:
    """Whatever is done to an archive, it is unpacked inside or refused."""
    whole = bytearray(tar(member("a/b", size=20), member("c", tarfile.SYMTYPE, "a/b"), member("d" * 120)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # past the checksum of the first header
        header = bytes(whole[:512])
        whole[:512] = with_size(header, bytes(header[124:136]))[:512]
    with tempfile.TemporaryDirectory() as scratch:
        path, directory = os.path.join(scratch, "a.tar"), os.path.join(scratch, "in")
        os.mkdir(directory)
        with open(path, "wb") as file:
            file.write(whole)
        with contextlib.suppress(BadArchive):
            unpack(path, directory, 30)
        assert sorted(os.listdir(scratch)) == ["a.tar", "in"]
        for top, _, files in os.walk(directory):
            for name in files:
                assert os.path.realpath(os.path.join(top, name)).startswith(f"{os.path.realpath(directory)}/")


targets = st.lists(st.sampled_from(["..", "a", "b", "link", ".", ""]), max_size=6).map("/".join)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["link", "d/link", "d/e/link", "d/e/f/b"]), targets, min_size=1))
def test_no_chain_of_links_leads_out(links: dict[str, str]) -> None:
    """Those that pass, made for real: no path through them leads out of the directory, as the kernel or as text."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = os.path.join(os.path.realpath(scratch), "x/y/in")
        os.makedirs(os.path.join(directory, "d/e/f"))
        for path, target in links.items():
            try:
                checked(Entry(path, Kind.LINK, target.encode()))
            except BadArchive:
                continue
            os.symlink(target, os.path.join(directory, path))
            assert os.path.normpath(os.path.join(directory, os.path.dirname(path), target)).startswith(
                directory
            )
        for path in links:
            for below in ("", "/link", "/a/link", "/e/link"):
                assert os.path.realpath(os.path.join(directory, path + below)).startswith(directory)


def test_what_a_name_says_of_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compression_of("a.tar.gz") == compression_of("b.tgz") == "gzip"
    monkeypatch.setattr("vfioctl.host.archive.writing.zstd", lambda: "/usr/bin/zstd")
    assert compression_of("x/a.tar.zst") == "zstd"
    monkeypatch.setattr("vfioctl.host.archive.writing.zstd", lambda: None)
    for name in ("a.tar.zst", "a.zip", "a", "tar.gz/x"):
        with pytest.raises(UsageError):
            compression_of(name)


def test_too_large_to_be_unpacked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfioctl.host.archive.writing.FILE", 10)
    with pytest.raises(UsageError, match="too large"):
        pack([Entry("a", Kind.FILE, bytes(11))], "gzip", 30)


def test_without_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setattr("vfioctl.host.archive.streams.zstd", lambda: None)
    with pytest.raises(BadArchive, match="not installed"):
        unpack(str(path), str(tmp_path), 30)


def test_a_zstd_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "zstd"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    program.chmod(0o755)
    path = tmp_path / "a.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setattr("vfioctl.host.archive.streams.zstd", lambda: str(program))
    began = time.monotonic()
    with pytest.raises(BadArchive):
        unpack(str(path), str(tmp_path), 0.5)
    assert time.monotonic() - began < 30
