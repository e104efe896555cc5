"""What is read as evidence: text, lines of it, links, owners; never a node's content, and nothing that is not there."""

from __future__ import annotations

import os
from pathlib import Path

from vfioctl.host.evidence import look_at
from vfioctl.model import Evidence, Look


def test_what_a_file_says(tmp_path: Path) -> None:
    sysfs = tmp_path / "sys"
    (sysfs / "devices/a").mkdir(parents=True)
    (sysfs / "devices/b").mkdir()
    (sysfs / "drivers/nvme").mkdir(parents=True)
    (sysfs / "devices/a/driver").symlink_to("../../drivers/nvme")
    (sysfs / "regions").write_text("0x1 0x2 direct\n0x3 0x4 direct-relaxable\n0x5   0x6 direct\n")
    (sysfs / "flag").write_text("N\n")
    (sysfs / "long").write_text("x" * 9999)
    root = str(tmp_path)
    assert look_at(Look("/sys/flag"), root) == [Evidence("/sys/flag", "N")]
    assert look_at(Look("/sys/regions", " direct$"), root) == [
        Evidence("/sys/regions", "0x1 0x2 direct; 0x5 0x6 direct")
    ]
    assert look_at(Look("/sys/devices/*/driver"), root) == [Evidence("/sys/devices/a/driver", "nvme")]
    assert [len(each.value) for each in look_at(Look("/sys/long"), root)] == [400]
    (sysfs / "flag").chmod(0o640)
    owner = f"owner {os.getuid()}:{os.getgid()}, mode 0640"
    assert look_at(Look("/sys/flag", access=True), root) == [Evidence("/sys/flag", owner)]
    for nothing in (
        Look("/sys/none"),
        Look("/sys/*/none"),
        Look("/sys/none", access=True),
        Look("/sys/devices"),
    ):
        assert look_at(nothing, root) == []
    assert look_at(Look("/sys/regions", "^msi"), root) == []


def test_a_node_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "node")  # to open it would wait for ever
    assert look_at(Look("/node"), str(tmp_path)) == []
