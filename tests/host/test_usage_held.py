"""The guard for what processes hold: who counts, and who only looks on."""

from __future__ import annotations

import pytest

from vfioctl.host.holders import Found, Holder
from vfioctl.host.usage.held import Held
from vfioctl.model import Use

DISK = Holder(
    4711, "qemu", 107, user="kvm", unit="a.service", address="0000:01:00.0", node="/dev/sda", kind="block"
)
KEY = DISK.key


def uses(*holders: Holder, unseen: int | None = 0) -> list[Use]:
    return list(Held(Found(holders, unseen)).uses(KEY))


def test_nobody() -> None:
    assert uses() == []
    assert uses(DISK._replace(address="0000:02:00.0")) == []


def test_a_process_is_named_once_with_all_its_nodes() -> None:
    words = "qemu (process 4711, user kvm, unit a.service)"
    assert uses(DISK, DISK._replace(node="/dev/sg0")) == [Use("held", f"{words} has /dev/sda, /dev/sg0 open")]
    assert len(uses(DISK, DISK._replace(pid=4712))) == 2


@pytest.mark.parametrize("kind", ["vfio", "vfio-dev", "vfio-device"])
def test_a_hold_through_vfio_is_no_use_by_the_host(kind: str) -> None:
    assert uses(DISK._replace(kind=kind)) == []


@pytest.mark.parametrize(
    ("command", "uid", "refuses"),
    [
        ("systemd-logind", 0, False),
        ("systemd-udevd", 0, False),
        ("(udev-worker)", 0, False),
        ("systemd-logind", 1000, True),
        ("Xorg", 0, True),
    ],
)
def test_onlookers_are_a_warning(command: str, uid: int, refuses: bool) -> None:
    (use,) = uses(DISK._replace(command=command, uid=uid, kind="drm"))
    assert (use.guard, use.refuses) == ("held", refuses)


@pytest.mark.parametrize(("unseen", "word"), [(3, "3 processes"), (None, "hidden")])
def test_what_could_not_be_seen(unseen: int | None, word: str) -> None:
    (use,) = uses(unseen=unseen)
    assert (use.guard, use.refuses) == ("unseen", False)
    assert word in use.evidence


def test_words_are_fit_to_be_shown() -> None:
    (use,) = uses(DISK._replace(node="/dev/\x1b[2J"))
    assert use.evidence.isprintable()
