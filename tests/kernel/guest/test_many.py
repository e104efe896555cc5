"""Many devices and whole groups: all of them or none, whatever happens in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of, modprobe, override_of, probe, unbind
from tests.kernel.guest.test_deadlines import wait_until
from vfioctl.host.machine import Machine

ROLES = ("nic_a", "nic_b", "mf0", "mf1", "conv_bridge", "conv_edu0", "conv_edu1", "conv_nic", "edu")
#: Two cards, the two functions of a third one, a group with a bridge on shpchp, and a device without a driver.
JOURNAL = Path("/run/vfioctl/journal.json")

Bindings = dict[str, tuple[str | None, str | None]]


@pytest.fixture
def before(vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Bindings]:
    """All on their host drivers; the bindings by role."""
    modprobe("e1000e", "e1000", "vfio-pci", "vfio_iommu_type1")
    if not Path("/sys/bus/pci/drivers/shpchp").is_dir():
        modprobe("shpchp")
    for role in ROLES:
        address = roles[role]
        if driver_of(address) in (None, "vfio-pci"):
            unbind(address)
            (PCI / address / "driver_override").write_text("\n")
            probe(address)
    yield now(roles)
    vfioctl("recover")
    vfioctl("unbind", *arguments(roles), "--group")


def now(roles: Mapping[str, str]) -> Bindings:
    return {role: (driver_of(roles[role]), override_of(roles[role])) for role in ROLES}


def arguments(roles: Mapping[str, str]) -> tuple[object, ...]:
    """In no particular order, some twice."""
    return (
        roles["nic_b"], group_of(roles["conv_edu0"]), roles["mf1"], roles["edu"], roles["nic_a"], roles["mf0"],
        roles["mf1"], group_of(roles["mf0"]),
    )  # fmt: skip


def at_write(monkeypatch: pytest.MonkeyPatch, address: str, action: Callable[[], object]) -> None:
    """Does something to the host just before the first write that is about the device."""
    real = Machine.write
    pending = [action]

    def write(machine: Machine, path: str, data: str) -> None:
        if pending and (address in path or address in data):
            pending.pop()()
        real(machine, path, data)

    monkeypatch.setattr(Machine, "write", write)


def test_all_of_them_and_back(vfioctl: Vfioctl, roles: Mapping[str, str], before: Bindings) -> None:
    assert before["conv_bridge"][0] == "shpchp" and before["conv_nic"][0] == "e1000"
    assert before["edu"] == (None, None)
    result = vfioctl("bind", *arguments(roles), "--user", 65534, "-J")
    assert result.status == 0, result.stderr
    assert result.json["changed"] is True
    found = [(device["group"], device["address"]) for device in result.json["devices"]]
    assert found == sorted(found) and len(found) == len(ROLES)
    bound = now(roles)
    assert bound.pop("conv_bridge") == (None, None)
    assert set(bound.values()) == {("vfio-pci", "vfio-pci")}
    assert all(d["node"]["uid"] == 65534 for d in result.json["devices"])
    checked = vfioctl("check-viable", "--live", *arguments(roles), "-q")
    assert checked.status == 0, checked.stderr
    again = vfioctl("bind", *reversed(arguments(roles)), "-J")
    assert (again.status, again.json["changed"]) == (0, False)
    back = vfioctl("unbind", *arguments(roles), "-J")
    assert back.status == 0, back.stderr
    assert now(roles) == before


# Not mf1: a function that comes back beside a function 0 that has stayed gets a group of its own from the kernel.
@pytest.mark.parametrize("role", ["nic_a", "conv_nic"])
def test_one_is_pulled_out_in_the_middle(
    vfioctl: Vfioctl,
    roles: Mapping[str, str],
    before: Bindings,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
) -> None:
    """Unplugged as its turn comes: the others are put back, or were not touched."""
    address = roles[role]
    with monkeypatch.context() as patched:
        at_write(patched, address, lambda: (PCI / address / "remove").write_text("1"))
        result = vfioctl("bind", *arguments(roles), "-J")
    assert not (PCI / address).exists()
    Path("/sys/bus/pci/rescan").write_text("1")
    wait_until(f"{address} has not come back", (PCI / address).exists)
    assert result.status in (3, 8), result.stderr
    assert result.stdout == "" and address in result.json_error["message"]
    assert not JOURNAL.exists()
    if driver_of(address) is None:
        probe(address)
    assert now(roles) == before


def test_one_that_vfio_refuses_puts_all_back(
    vfioctl: Vfioctl, roles: Mapping[str, str], before: Bindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program takes the last one, in the moment in which it has no driver."""
    last = max((group_of(roles[role]), roles[role]) for role in ROLES if role != "conv_bridge")[1]
    driver = driver_of(last)
    modprobe("pci-stub")

    def steal() -> None:
        unbind(last)
        (PCI / last / "driver_override").write_text("pci-stub")
        probe(last)
        assert driver_of(last) == "pci-stub"

    with monkeypatch.context() as patched:
        at_write(patched, last, steal)
        result = vfioctl("bind", *arguments(roles), "-J")
    assert result.status == 8, result.stderr
    assert last in result.json_error["message"] and result.json_error["errno"] in ("ENODEV", "EBUSY")
    assert "as it was before" in result.json_error["message"]
    assert now(roles) == before and driver_of(last) == driver
