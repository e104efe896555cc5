"""Users and groups by their names, also when nobody answers."""

from __future__ import annotations

import grp
import pwd
import time
from collections.abc import Callable

import pytest

from vfioctl.errors import DeadlinePassed
from vfioctl.host import accounts
from vfioctl.host.accounts import account_of, gid_of, uid_of


def test_what_is_known() -> None:
    root = account_of("root")
    assert root is not None and root == account_of("0")
    assert (root.uid, root.home) == (0, pwd.getpwuid(0).pw_dir)
    assert uid_of("root") == 0 and gid_of(grp.getgrgid(0).gr_name) == 0


@pytest.mark.parametrize("look", [account_of, uid_of, gid_of])
def test_what_is_not(look: Callable[[str], object]) -> None:
    assert look("no-such-name") is None


@pytest.mark.parametrize("look", [account_of, uid_of, gid_of])
def test_a_directory_that_does_not_answer(
    look: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "PATIENCE", 0.1)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: time.sleep(60))
    monkeypatch.setattr(grp, "getgrnam", lambda name: time.sleep(60))
    with pytest.raises(DeadlinePassed, match=r"who eve is has not been answered within 0\.1 s"):
        look("eve")
