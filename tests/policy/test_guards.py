"""Which uses concern a change, how they are refused, and that every guard has its place."""

from __future__ import annotations

import pytest

from vfioctl.errors import GuardRefusal
from vfioctl.model import KERNELS_CHOICE, Device, IommuGroup, Kernel, KernelChoice, Snapshot, Use
from vfioctl.policy.guards import ALLOWABLE_GUARDS, GUARDS, IN_USE_GUARDS, Kind, concerning, refuse_in_use
from vfioctl.policy.impact import impacts

MOUNTED = Use("mounted-disk", "sda is mounted on /mnt")
ROOT = Use("root-disk", "sda is mounted on /")
DATA = Use("has-data", "sda has partitions", refuses=False)
DOMAIN = Use("libvirt", "the running libvirt domain vm has it")
ASSIGNED = Use("virtual-functions-assigned", "its virtual functions are on VFIO")


def claim(driver: str) -> Use:
    return Use("driverctl", f"it is for {driver}", driver=driver)


def on(driver: str | None) -> Device:
    return Device("0000:01:00.0", "pci", 1, driver=driver)


class TestRefusal:
    def refused(self, *uses: Use, allow: tuple[str, ...] = ()) -> GuardRefusal:
        with pytest.raises(GuardRefusal) as caught:
            refuse_in_use({"a": uses[:1], "b": uses[1:]}, allow)
        return caught.value

    def test_every_guard_is_named_with_its_evidence_and_its_word(self) -> None:
        error = self.refused(MOUNTED, ROOT)
        assert error.code == "root-disk" and error.subject == "b"
        assert f"a: {MOUNTED.evidence}" in error.message and f"b: {ROOT.evidence}" in error.message
        assert (error.hint or "").endswith("--allow root-disk --allow mounted-disk")
        assert error.details["guards"] == [
            {"guard": "mounted-disk", "subject": "a", "evidence": MOUNTED.evidence},
            {"guard": "root-disk", "subject": "b", "evidence": ROOT.evidence},
        ]

    def test_what_is_allowed_is_not_named(self) -> None:
        error = self.refused(MOUNTED, ROOT, allow=("mounted-disk",))
        assert error.message == f"guard root-disk: b: {ROOT.evidence}"
        assert (error.hint or "").endswith("all the same: --allow root-disk")
        assert len(error.details["guards"]) == 1

    def test_what_cannot_be_allowed_is_not_offered(self) -> None:
        error = self.refused(ASSIGNED, ROOT)
        assert error.code == "virtual-functions-assigned"
        assert "there is no --allow for virtual-functions-assigned" in (error.hint or "")
        assert "--allow root-disk" not in (error.hint or "")

    def test_nothing_refused(self) -> None:
        refuse_in_use({"a": (ROOT, DATA)}, ("root-disk",))
        refuse_in_use({"a": (DATA,)}, ())
        refuse_in_use({}, ())


class TestConcerning:
    @pytest.mark.parametrize(
        ("now", "goal", "concerns"),
        [
            ("nvme", "vfio-pci", True),
            ("nvme", None, True),
            ("nvme", "pci-stub", True),
            ("nvme", "nvme", False),
            (None, "vfio-pci", True),
            (None, "nvme", False),
            (None, KERNELS_CHOICE, False),
            ("vfio-pci", "nvme", False),
            ("vfio-pci", KERNELS_CHOICE, False),
            ("vfio-pci", None, False),
            ("pci-stub", "vfio-pci", False),
        ],
    )
    def test_what_leaves_the_host(
        self, now: str | None, goal: str | KernelChoice | None, concerns: bool
    ) -> None:
        assert concerning(on(now), goal, (ROOT,)) == ((ROOT,) if concerns else ())

    @pytest.mark.parametrize(
        ("now", "goal", "driver", "concerns"),
        [
            ("nvme", "vfio-pci", "nvme", True),
            ("nvme", "vfio-pci", "vfio-pci", False),
            ("nvme", "mlx5_vfio_pci", "vfio-pci", False),
            ("vfio-pci", "nvme", "vfio-pci", True),
            ("vfio-pci", KERNELS_CHOICE, "vfio-pci", True),
            ("vfio-pci", None, "vfio-pci", True),
            ("vfio-pci", "nvme", "nvme", False),
            ("vfio-pci", KERNELS_CHOICE, "nvme", False),
            ("vfio-pci", "other", "nvme", True),
            ("nvme", None, "nvme", True),
        ],
    )
    def test_a_claim_for_a_driver(
        self, now: str, goal: str | KernelChoice | None, driver: str, concerns: bool
    ) -> None:
        assert bool(concerning(on(now), goal, (claim(driver),))) == concerns

    def test_a_claim_without_a_driver(self) -> None:
        assert concerning(on("vfio-pci"), KERNELS_CHOICE, (DOMAIN, ROOT)) == (DOMAIN,)
        assert concerning(on("vfio-pci"), "vfio-pci", (DOMAIN, ROOT)) == ()

    def test_the_gravest_first(self) -> None:
        assert concerning(on("nvme"), "vfio-pci", (DATA, DOMAIN, ROOT)) == (ROOT, DOMAIN, DATA)

    def test_a_variant_driver_that_is_not_known_by_name(self) -> None:
        goal = "new_vfio_pci"
        assert concerning(on(None), goal, (ROOT,)) == ()
        assert concerning(on(None), goal, (ROOT,), lambda name: name == goal) == (ROOT,)


class TestImpacts:
    def snapshot(self, *drivers: str | None) -> Snapshot:
        devices = tuple(
            Device(f"0000:01:00.{n}", "pci", 7, driver=driver) for n, driver in enumerate(drivers)
        )
        return Snapshot(Kernel("6.1.0"), (IommuGroup(7, devices=devices),), devices)

    def test_siblings_that_stay(self) -> None:
        (found,) = impacts(
            self.snapshot("snd", "ehci", "pcieport", None), {"pci/0000:01:00.0": "vfio-pci"}, {}
        )
        assert [device.address for device in found.siblings] == ["0000:01:00.1"]
        (use,) = found.uses
        assert (use.guard, use.refuses) == ("siblings", False)
        assert "group 7" in use.evidence and "0000:01:00.1 (ehci)" in use.evidence

    def test_siblings_that_leave_too(self) -> None:
        goals = {f"pci/0000:01:00.{n}": "vfio-pci" for n in range(2)}
        assert [i.siblings for i in impacts(self.snapshot("snd", "ehci"), goals, {})] == [(), ()]

    def test_giving_back_asks_for_no_siblings(self) -> None:
        (found,) = impacts(self.snapshot("vfio-pci", "ehci"), {"pci/0000:01:00.0": "snd"}, {})
        assert found.uses == () and found.siblings == ()

    def test_uses_go_to_their_device(self) -> None:
        goals = {f"pci/0000:01:00.{n}": "vfio-pci" for n in range(2)}
        found = impacts(self.snapshot("snd", "nvme"), goals, {"pci/0000:01:00.1": (ROOT,)})
        assert [impact.uses for impact in found] == [(), (ROOT,)]


def test_the_table() -> None:
    assert set(IN_USE_GUARDS) <= set(ALLOWABLE_GUARDS) <= set(GUARDS)
    for name, guard in GUARDS.items():
        assert guard.description.endswith("."), name
        assert (name in ALLOWABLE_GUARDS) == (guard.kind not in (Kind.NEVER, Kind.OPTION, Kind.WARNING)), name
