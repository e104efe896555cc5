"""Faults that are planted on real hosts, each found with its evidence and cured by its cure; and hosts without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import group_of
from tests.kernel.testbed.command import Result

Roles = Mapping[str, str]
pytestmark = pytest.mark.deadline(240)
UNSAFE = Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")


def found(result: Result) -> dict[str, dict[str, Any]]:
    """The findings by their codes; that the status and the verdict are in step with them."""
    assert result.stdout, result.stderr
    document = result.json
    counting = [f for f in document["findings"] if f["severity"] != "info"]
    assert (result.status, document["healthy"]) == ((1, False) if counting else (0, True)), result.stdout
    for finding in counting:
        assert finding["evidence"] and finding["cure"], finding
    return {finding["code"]: finding for finding in document["findings"]}


@contextmanager
def planted(path: Path, text: str) -> Iterator[None]:
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


@pytest.mark.machine("no-iommu")
def test_no_iommu(vfioctl: Vfioctl, roles: Roles) -> None:
    faults = found(vfioctl("doctor", "-J"))
    assert set(faults) == {"no-iommu"}
    assert faults["no-iommu"]["evidence"][0]["file"] == "/proc/cmdline"
    assert set(found(vfioctl("doctor", roles["nic_a"], "-J"))) == {"no-iommu"}


@pytest.mark.machine("no-intremap")
def test_interrupts_that_are_not_isolated(vfioctl: Vfioctl, vfio_pci: Path, roles: Roles) -> None:
    for subjects in ((), (roles["nic_a"],)):
        fault = found(vfioctl("doctor", *subjects, "-J"))["interrupts-not-isolated"]
        assert fault["severity"] == "error"
    with planted(UNSAFE, "Y"):
        faults = found(vfioctl("doctor", "-J"))
        assert faults["unsafe-interrupts"]["severity"] == "warning"
        assert "interrupts-not-isolated" not in faults


@pytest.mark.machine("rmrr")
def test_a_region_that_firmware_wants_mapped(vfioctl: Vfioctl, roles: Roles) -> None:
    edu = roles["edu"]
    fault = found(vfioctl("doctor", "-J"))["direct-region"]
    assert (fault["severity"], fault["subject"]) == ("warning", str(group_of(edu)))
    assert [e["value"].split()[-1] for e in fault["evidence"]] == ["direct"]
    assert found(vfioctl("doctor", edu, "-J"))["direct-region"]["severity"] == "error"
    assert found(vfioctl("doctor", roles["nic_a"], "-J")) == {}
