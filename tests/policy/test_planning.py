"""The planner on the imitated kernel: from every state to every goal, and never in the wrong order."""

from __future__ import annotations

import itertools
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.fakes.drivers import FakeDevice
from tests.fakes.kernel import FakeKernel
from tests.fakes.topology import E1000E
from vfioctl.model import KERNELS_CHOICE, Access, Binding, BindingGoal, SetAccess, Step, Write
from vfioctl.policy.planning import as_shell, plan

ADDRESS = "0000:01:00.0"
KEY = f"pci/{ADDRESS}"
DRIVERS = (None, "e1000e", "vfio-pci", "pci-stub")
OVERRIDES = (None, "vfio-pci", "e1000e", "none")
STATES = [Binding(*both) for both in itertools.product(DRIVERS, OVERRIDES)]
GOALS = [BindingGoal(*both) for both in itertools.product(DRIVERS, OVERRIDES)] + [
    BindingGoal(KERNELS_CHOICE, None),
    BindingGoal(KERNELS_CHOICE, None, leaving="vfio-pci"),
]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> FakeKernel:
    kernel = FakeKernel(str(tmp_path_factory.mktemp("host")), [FakeDevice(ADDRESS, E1000E, 1)])
    for module in ("e1000e", "vfio-pci", "pci-stub"):
        kernel.load_module(module)
    return kernel


def put(kernel: FakeKernel, state: Binding) -> None:
    device = kernel.devices[ADDRESS]
    kernel._detach(device)
    if state.driver is not None:
        assert kernel._probe(kernel.drivers[state.driver], device) == 0
    kernel._override(device, f"{state.driver_override or ''}\n")
    kernel.writes.clear()


def get(kernel: FakeKernel) -> Binding:
    device = kernel.devices[ADDRESS]
    return Binding(device.driver, device.override)


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_every_state_leads_to_the_goal(kernel: FakeKernel, goal: BindingGoal) -> None:
    for now in STATES:
        put(kernel, now)
        for write in plan(KEY, now, goal):
            kernel.write(write.path, write.data)
        assert goal.reached(get(kernel)), now
        if goal.driver is not KERNELS_CHOICE:
            assert plan(KEY, get(kernel), goal) == []


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_from_any_instant_in_between_too(kernel: FakeKernel, goal: BindingGoal) -> None:
    """What recovery relies on: the plan is made from what is, wherever the last one stopped."""
    for now in STATES:
        for stop in range(len(plan(KEY, now, goal))):
            put(kernel, now)
            for write in plan(KEY, now, goal)[:stop]:
                kernel.write(write.path, write.data)
            for back in (goal, BindingGoal.back_to(now)):
                for write in plan(KEY, get(kernel), back):
                    kernel.write(write.path, write.data)
                assert back.reached(get(kernel)), (now, stop)


@pytest.mark.parametrize("goal", [g for g in GOALS if isinstance(g.driver, str)], ids=str)
def test_the_override_comes_before_the_unbind(goal: BindingGoal) -> None:
    for now in STATES:
        files = [write.path.rpartition("/")[2] for write in plan(KEY, now, goal)]
        if "unbind" not in files:
            continue
        steered = now.driver_override == goal.driver
        assert steered or "driver_override" in files[: files.index("unbind")], now


def test_new_id_leaves_the_override_alone() -> None:
    goal = BindingGoal("vfio-pci", None, steer=False)
    assert plan(KEY, Binding("e1000e"), goal) == [
        Write("/sys/bus/pci/drivers/e1000e/unbind", ADDRESS),
        Write("/sys/bus/pci/drivers/vfio-pci/bind", ADDRESS),
    ]


def test_no_write_when_it_is_there() -> None:
    for state in STATES:
        assert plan(KEY, state, BindingGoal.back_to(state)) == []


def test_other_buses_have_their_own_files() -> None:
    (first, *_) = plan("platform/fe000000.dma", Binding(None), BindingGoal("vfio-platform", "vfio-platform"))
    assert first.path == "/sys/bus/platform/devices/fe000000.dma/driver_override"


def test_a_shell_does_the_same(tmp_path: Path) -> None:
    target = tmp_path / "a file; rm -r *"
    steps: list[Step] = [Write(str(target), "$(id) 'x' \"y\""), SetAccess(str(target), Access(0, 0, 0o640))]
    lines = as_shell(steps)
    assert lines[1:] == [f"chown 0:0 {shlex.quote(str(target))}", f"chmod 0640 {shlex.quote(str(target))}"]
    subprocess.run(["sh", "-ec", lines[0]], check=True)
    assert target.read_text() == "$(id) 'x' \"y\"\n"
    assert as_shell([Write("/sys/x/driver_override", "\n")]) == ["echo > /sys/x/driver_override"]


NUMVFS = f"/sys/bus/pci/devices/{ADDRESS}/sriov_numvfs"


def test_virtual_functions_go_before_their_driver_and_come_back_after_it() -> None:
    host, vfio = Binding("nvme", None, 2), Binding("vfio-pci", "vfio-pci", 0)
    there = plan(KEY, host, BindingGoal("vfio-pci", "vfio-pci"))
    assert there[0] == Write(NUMVFS, "0")
    assert [write.path for write in there].count(NUMVFS) == 1
    back = plan(KEY, vfio, BindingGoal.back_to(host))
    assert back[-1] == Write(NUMVFS, "2")
    assert back[-2].path.endswith("/driver_override")


@pytest.mark.parametrize(
    ("now", "then", "numbers"),
    [(0, 2, ["2"]), (4, 2, ["0", "2"]), (2, 2, []), (2, None, []), (2, 0, ["0"]), (None, None, [])],
)
def test_their_number_alone(now: int | None, then: int | None, numbers: list[str]) -> None:
    """The kernel takes another number only when there are none (EBUSY)."""
    found = plan(KEY, Binding("nvme", None, now), BindingGoal("nvme", None, numvfs=then))
    assert [write.data for write in found if write.path == NUMVFS] == numbers


def test_they_stay_with_a_driver_that_the_kernel_may_keep() -> None:
    now = Binding("nvme", None, 2)
    assert plan(KEY, now, BindingGoal(KERNELS_CHOICE, None)) == []
    assert plan(KEY, now, BindingGoal(KERNELS_CHOICE, None, leaving="nvme"))[0] == Write(NUMVFS, "0")
