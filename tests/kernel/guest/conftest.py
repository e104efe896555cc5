"""What the tests inside a guest work with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.testbed.command import DEADLINE, Result, Running, Setting, start
from tests.kernel.testbed.kernel_log import KernelLog
from tests.kernel.testbed.places import places_of
from tests.kernel.testbed.qmp import Qmp
from tests.kernel.testbed.roles import write_roles
from tests.kernel.testbed.udevd import Udevd


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("machine", places_of(metafunc.definition), ids=str, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """The id of the place where the test runs: ``6.1``, ``7.2-rmrr``."""
    return str(request.param)


@pytest.fixture(scope="session")
def kernel() -> str:
    """The release of the running kernel."""
    return os.uname().release


@pytest.fixture(scope="session")
def roles() -> Mapping[str, str]:
    """The PCI address of each device of the machine by its role (see tests/kernel/testbed/machine.py)."""
    return write_roles()


class Vfioctl:
    """Runs ``vfioctl ARGUMENT...``: call it for the result, or ``start`` it to meddle while it runs.

    The keywords are those of ``tests.kernel.testbed.command.Setting``, and ``deadline`` in seconds.
    """

    unprivileged = (65534, 65534)

    def __init__(self, main: Callable[[list[str]], object] | None = None) -> None:
        self._main = main

    def __call__(self, *arguments: object, deadline: float = DEADLINE, **setting: object) -> Result:
        return self.start(*arguments, **setting).wait(deadline)

    def start(self, *arguments: object, **setting: object) -> Running:
        return start([str(argument) for argument in arguments], Setting(**setting), self._main)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def vfioctl() -> Vfioctl:
    """``vfioctl("bind", roles["edu"], "-J").json`` and so on; see Vfioctl."""
    return Vfioctl()


@pytest.fixture
def kernel_log() -> Iterator[KernelLog]:
    """The kernel's messages since the test began."""
    log = KernelLog()
    yield log
    log.close()


@pytest.fixture(scope="session")
def qmp() -> Iterator[Qmp]:
    """The emulator's monitor, for hot-plug and unplug."""
    session = Qmp()
    yield session
    session.close()


@pytest.fixture(scope="session")
def vfio_pci() -> Path:
    """/dev/vfio, with the modules vfio-pci and vfio loaded."""
    if os.spawnlp(os.P_WAIT, "modprobe", "modprobe", "vfio-pci") != 0:
        raise RuntimeError("modprobe vfio-pci failed; see the guest's console")
    return Path("/dev/vfio")


@pytest.fixture
def udevd() -> Iterator[Udevd]:
    """A real systemd-udevd for the duration of the test; without it no udev runs in the guest."""
    daemon = Udevd()
    daemon.start()
    yield daemon
    daemon.stop()
