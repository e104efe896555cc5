"""Who is behind root."""

from __future__ import annotations

import pytest

from vfioctl.policy.caller import caller


@pytest.mark.parametrize(
    ("environment", "loginuid", "who"),
    [
        ({"SUDO_UID": "1000", "SUDO_USER": "alice"}, "1001", "1000"),
        ({"PKEXEC_UID": "1002"}, "1001", "1002"),
        ({"DOAS_USER": "bob"}, "4294967295", "bob"),
        ({}, "1001", "1001"),
        ({"SUDO_UID": "0"}, "1001", "1001"),  # root used sudo, but alice has logged in
        ({"DOAS_USER": "root"}, "0", None),
        ({"SUDO_UID": ""}, "4294967295", None),
        ({}, None, None),
    ],
)
def test_caller(environment: dict[str, str], loginuid: str | None, who: str | None) -> None:
    assert caller(environment, loginuid, 0) == who


def test_without_root() -> None:
    assert caller({}, "4294967295", 1000) == "1000"
