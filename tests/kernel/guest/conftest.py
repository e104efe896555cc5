"""What the tests inside a guest work with."""

from __future__ import annotations

import pytest

from tests.kernel.testbed.places import places_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("machine", places_of(metafunc.definition), ids=str, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """The id of the place where the test runs: ``6.1``, ``7.2-rmrr``."""
    return str(request.param)
