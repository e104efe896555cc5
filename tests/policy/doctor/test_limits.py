"""pam_limits and systemd: which line decides."""

from __future__ import annotations

import pytest

from vfioctl.errors import UsageError
from vfioctl.model import LockLimit, Login, Readings
from vfioctl.policy.doctor import limits

ALICE = Login("alice", 1000, (("alice", 1000), ("kvm", 104)))
ROOT = Login("root", 0, (("root", 0),))
MAIN, MORE = "/etc/security/limits.conf", "/etc/security/limits.d/more.conf"


def login(main: str, more: str = "", who: Login = ALICE) -> LockLimit | None:
    return limits.of_login(who, Readings({MAIN: main, MORE: more}), (MAIN, MORE))


@pytest.mark.parametrize(
    ("main", "more", "soft", "hard"),
    [
        ("* - memlock 64", "", 64 << 10, 64 << 10),
        ("* soft memlock 64\n* hard memlock 128", "", 64 << 10, 128 << 10),
        ("* hard memlock 128", "", 128 << 10, 128 << 10),
        ("* soft memlock unlimited\n* hard memlock 128", "", 128 << 10, 128 << 10),
        ("* soft memlock 64", "", 64 << 10, None),
        ("* - memlock infinity", "", None, None),
        ("* - memlock -1  # all of it", "", None, None),
        ("* - memlock 64", "* - memlock 128", 128 << 10, 128 << 10),
        ("alice - memlock 64", "* - memlock 128\n@kvm - memlock 256", 64 << 10, 64 << 10),
        ("@kvm - memlock 64", "* - memlock 128", 64 << 10, 64 << 10),
        ("@104: - memlock 64", "", 64 << 10, 64 << 10),
        ("1000:1010 - memlock 64", "@kvm - memlock 1", 64 << 10, 64 << 10),
        (":1000 - memlock 64", "", 64 << 10, 64 << 10),
        ("* - MEMLOCK 64\n* - memlock\n* - memlock many\n#* - memlock 1", "", 64 << 10, 64 << 10),
    ],
)  # fmt: skip
def test_a_login(main: str, more: str, soft: int | None, hard: int | None) -> None:
    found = login(main, more)
    assert found is not None
    assert (found.soft, found.hard, found.who, found.exempt) == (soft, hard, "user alice", False)
    assert found.path in (MAIN, MORE) and "memlock" in found.value.lower()


@pytest.mark.parametrize(
    "main",
    ["", "bob - memlock 64", "@audio - memlock 64", "* - nofile 64", "1001: - memlock 64", ": - memlock 1"],
)
def test_no_line_is_about_the_user(main: str) -> None:
    assert login(main) is None


def test_root_has_a_line_of_its_own_only() -> None:
    assert login("* - memlock 64\n@root - memlock 64", who=ROOT) is None
    found = login("root - memlock 64", who=ROOT)
    assert found is not None and found.exempt


UNIT, DROP_IN, SYSTEM = (
    "/usr/lib/systemd/system/vm.service",
    "/etc/systemd/system/vm.service.d/a.conf",
    "/etc/systemd/system.conf",
)


def unit(fragment: str, drop_in: str = "", system: str = "") -> LockLimit:
    readings = Readings({UNIT: fragment, DROP_IN: drop_in, SYSTEM: system})
    return limits.of_unit("vm.service", readings, (UNIT, DROP_IN), (SYSTEM,))


@pytest.mark.parametrize(
    ("fragment", "drop_in", "system", "soft", "hard", "path"),
    [
        ("[Service]\nLimitMEMLOCK=64M", "", "", 64 << 20, 64 << 20, UNIT),
        ("[Service]\nLimitMEMLOCK = 4096:1G", "", "", 4096, 1 << 30, UNIT),
        ("[Service]\nLimitMEMLOCK=much", "", "", 8 << 20, 8 << 20, UNIT),
        ("[Service]\nLimitMEMLOCK=1M:infinity", "", "", 1 << 20, None, UNIT),
        ("[Service]\nLimitMEMLOCK=infinity", "", "", None, None, UNIT),
        ("[Service]\nLimitMEMLOCK=64M", "[Service]\nLimitMEMLOCK=128M", "", 128 << 20, 128 << 20, DROP_IN),
        ("[Service]\nLimitMEMLOCK=64M", "[Service]\nLimitMEMLOCK=", "", 8 << 20, 8 << 20, UNIT),
        ("[Unit]\nLimitMEMLOCK=64M\n[Service]\n#LimitMEMLOCK=1G", "", "", 8 << 20, 8 << 20, UNIT),
        ("[Service]", "", "[Manager]\nDefaultLimitMEMLOCK=1G", 1 << 30, 1 << 30, SYSTEM),
    ],
)  # fmt: skip
def test_a_service(
    fragment: str, drop_in: str, system: str, soft: int | None, hard: int | None, path: str
) -> None:
    found = unit(f"{fragment}\n", f"{drop_in}\n", f"{system}\n")
    assert (found.soft, found.hard, found.path) == (soft, hard, path)


@pytest.mark.parametrize(
    ("fragment", "exempt"),
    [
        ("[Service]\n", True),
        ("[Service]\nUser=root\n", True),
        ("[Service]\nUser=qemu\n", False),
        ("[Service]\nDynamicUser=yes\n", False),
        ("[Service]\nCapabilityBoundingSet=CAP_SYS_RAWIO CAP_IPC_LOCK\n", True),
        ("[Service]\nCapabilityBoundingSet=CAP_SYS_RAWIO\n", False),
        ("[Service]\nCapabilityBoundingSet=~CAP_IPC_LOCK\n", False),
    ],
)
def test_root_needs_no_limit_while_it_has_the_capability(fragment: str, exempt: bool) -> None:
    assert unit(fragment).exempt is exempt


def test_names_of_services() -> None:
    assert limits.unit_name("libvirtd") == "libvirtd.service"
    assert limits.unit_name("vm@a.b.service") == "vm@a.b.service"
    assert limits.unit_name("vm@win") == "vm@win.service"
    for wrong in ("../x.service", "a/b.service", "machine-qemu.scope", "", "x.socket", "a b"):
        with pytest.raises(UsageError):
            limits.unit_name(wrong)
