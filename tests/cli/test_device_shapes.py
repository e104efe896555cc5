"""The JSON of commands on an open device is what the manual shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_manual import keys, shapes
from tests.fakes.command import run_command
from tests.fakes.device import MMAP, READ, WRITE, FakeClient, FakeDevice, FakeRegion, open_for_commands
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES, SMALL, boot
from tests.policy.test_pci_config import dump

EDU = ROLES["edu"]


@pytest.mark.parametrize(("command", "shown"), shapes("shape on a device"), ids=lambda value: str(value)[:20])
def test_shapes_are_what_is_printed(
    command: list[str], shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = {
        0: FakeRegion(0x2000, READ | WRITE | MMAP, areas=((0, 0x1000),)),
        7: FakeRegion(256, READ | WRITE, dump("edu")),
    }
    device, client = FakeDevice(regions), FakeClient([2])
    eventfd = os.eventfd(1)
    client.keep(f"irq/{EDU}/req/0", eventfd)
    os.close(eventfd)
    open_for_commands(monkeypatch, device, client, temporary=False)
    printed = run_command(FakeMachine(boot(str(tmp_path), SMALL)), *command)
    assert printed.status == 0, printed.stderr
    assert keys(printed.json) == keys(shown)
