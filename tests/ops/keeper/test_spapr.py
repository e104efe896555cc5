"""The commands of POWER, window and eeh, by the command line on the fake sPAPR."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.machine import FakeMachine
from tests.host.fake_spapr import SECOND_START, V1, V2, WINDOW_SIZE
from tests.ops.keeper.conftest import groups
from vfioctl.uapi.spapr import EEH_ERR_FUNC

Run = Callable[..., Result]


@pytest.fixture
def run(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Commands on an open container ``work`` with one group."""
    fake = machine.fake  # type: ignore[attr-defined]
    fake.backends = {V1, V2}
    assert run_command(machine, "container", "open", "work", groups(machine)[0]).status == 0
    yield lambda *arguments: run_command(machine, *arguments)
    assert run_command(machine, "container", "close", "work").status == 0


def test_windows(run: Run) -> None:
    made = run("window", "create", "-c", "work", "--page-size", "4K", "--size", "4G", "--levels", "2", "-J")
    assert made.json["window"] == {
        "start": SECOND_START,
        "end": SECOND_START + (4 << 30) - 1,
        "page_size": 4096,
        "levels": 2,
    }
    shown = run("container", "show", "work")
    assert f"windows=start=0x0 end={WINDOW_SIZE - 1:#x} page_size=4096 levels=1" in shown.stdout
    assert "max_windows=2" in shown.stdout.splitlines()
    assert (
        run("map", "-c", "work", "--iova", hex(SECOND_START), "--size", "64K", "--chunk", "16K").status == 0
    )
    busy = run("window", "remove", hex(SECOND_START), "-c", "work")
    assert (busy.status, "has mappings: 4" in busy.stderr) == (6, True)
    assert run("unmap", "-c", "work", "--all").status == 0
    assert run("window", "remove", hex(SECOND_START), "-c", "work").status == 0
    assert run("window", "remove", hex(SECOND_START), "-c", "work").status == 3
    for page, size, code in (("8K", "1G", "window-invalid"), ("4K", "3G", "window-invalid")):
        wrong = run("window", "create", "-c", "work", "--page-size", page, "--size", size, "-J")
        assert (wrong.status, wrong.json_error["code"]) == (2, code)


def test_the_way_back_of_eeh(run: Run) -> None:
    for words in (
        ("enable",),
        *(("reset", kind) for kind in ("--hot", "--fundamental", "--hold", "--deactivate")),
        *(("unfreeze", *kind) for kind in ([], ["--io"], ["--dma"])),
        ("configure",),
        ("inject", "st-cfg-data", "--type", "64", "--addr", "0x10", "--mask", "0xff"),
        ("disable",),
    ):
        assert run("eeh", *words, "-c", "work").status == 0, words
    assert run("eeh", "state", "-c", "work", "-J").json == {
        "schema_version": 1,
        "container": "work",
        "state": "normal",
    }
    failed = run("eeh", "inject", EEH_ERR_FUNC[0].replace("_", "-"), "-c", "work")
    assert (failed.status, "could not do that" in failed.stderr) == (7, True)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "normal"), (1, "reset"), (2, "stopped"), (4, "stopped_dma"), (5, "unavail")]
)
def test_states(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    fake = machine.fake  # type: ignore[attr-defined]
    fake.backends = {V2}
    fake.eeh_state = number
    both = groups(machine)
    assert run_command(machine, "container", "open", "work", *both).status == 0
    found = run_command(machine, "eeh", "state", "-c", "work", "-n")
    assert found.stdout.split() == ["work", name]
    assert ("without saying which" in found.stderr) == (number != 0)
    assert run_command(machine, "container", "close", "work").status == 0


def test_other_backends_have_neither(machine: FakeMachine) -> None:
    assert run_command(machine, "container", "open", "work", groups(machine)[0]).status == 0
    wrong = run_command(machine, "window", "create", "-c", "work", "--page-size", "4K", "--size", "1G", "-J")
    assert (wrong.status, wrong.json_error["code"]) == (2, "not-supported")
    refused = run_command(machine, "eeh", "state", "-c", "work", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-eeh")
    assert run_command(machine, "container", "close", "work").status == 0
