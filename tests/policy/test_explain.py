"""Explanations: reasons, whether the isolation is real, remedies, and what a kernel does that the model does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.fakes.functions import ACS_OFF, FULL_ACS, NO_ACS, function, load
from vfioctl.model import Device, IommuGroup, IommuUnit, Kernel, Node, PciFunction, Platform, Snapshot
from vfioctl.policy.topology.explain import Explainer, Explanation, representative

VTD = IommuUnit("dmar0")
PORT = function("0000:00:1c.0", None, "root-port", FULL_ACS, group=1)
OPEN = function("0000:00:1d.0", None, "root-port", NO_ACS, group=2)
OFF = function("0000:00:1e.0", None, "root-port", ACS_OFF, group=3)


def below(port: PciFunction, count: int = 2, group: int | None = None) -> list[PciFunction]:
    """Functions of one slot below a port, in its group unless another is given."""
    bus = int(port.address[8:10], 16)
    return [
        function(f"0000:{bus:02x}:00.{n}", port, multi=True, group=port.group if group is None else group)
        for n in range(count)
    ]


def host(
    functions: Sequence[PciFunction],
    *,
    units: tuple[str, ...] = ("dmar0",),
    cmdline: str = "",
    release: str = "7.2.0",
    machine: str = "x86_64",
    tables: tuple[str, ...] = ("DMAR",),
    others: Sequence[Device] = (),
    names: str | None = None,
    node: str | None = None,
) -> tuple[Explainer, Snapshot]:
    devices = [Device(f.address, "pci", f.group, f.ids, f.driver) for f in functions]
    devices += others
    numbers = sorted({d.group for d in devices if d.group is not None})
    groups = tuple(
        IommuGroup(
            number,
            names,
            node=Node(node, 0, 0, 0o600) if node else None,
            devices=tuple(d for d in devices if d.group == number),
        )
        for number in numbers
    )
    snapshot = Snapshot(Kernel(release, machine, iommu_units=units), groups, tuple(devices))
    platform = Platform(machine, cmdline, tables, units, True, True)
    return Explainer(snapshot, functions, platform), snapshot


def explained(
    functions: Sequence[PciFunction], subject: int | str, unit: IommuUnit | None = VTD, **more: object
) -> Explanation:
    explainer, snapshot = host(functions, **more)  # type: ignore[arg-type]
    found: list[IommuGroup | Device] = [g for g in snapshot.groups if g.id == subject]
    found += [d for d in snapshot.devices if d.address == subject]
    return explainer.explain(found[0], unit)


def codes(notes: Sequence[object]) -> list[str]:
    return [note.code for note in notes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["intel", "amd"])
def test_every_group_of_a_known_machine(name: str) -> None:
    functions = load(name)
    unit = {"intel": "dmar0", "amd": "ivhd0"}[name]
    more = {"units": (unit,), "tables": ({"intel": "DMAR", "amd": "IVRS"}[name],)}
    explainer, snapshot = host(functions, **more)  # type: ignore[arg-type]
    for group in snapshot.groups:
        found = explainer.explain(group, IommuUnit(unit))
        assert (found.group, found.rule, found.agrees) == (group.id, "pci", True)
        assert (
            {reason.address for reason in found.reasons}
            == {d.address for d in group.devices}
            == set(found.devices)
        )
        assert "model-differs" not in codes(found.caveats)
    leaky = {group.id for group in snapshot.groups if explainer.explain(group, IommuUnit(unit)).real is False}
    assert leaky == {"intel": {17, 18}, "amd": {14, 15}}[name]


def test_a_slot_below_a_port_without_acs() -> None:
    found = explained([PORT, OPEN, *below(OPEN)], 2)
    assert [(reason.address, reason.code, reason.bridge) for reason in found.reasons] == [
        ("0000:00:1d.0", "separate", None),
        ("0000:1d:00.0", "no-acs", "0000:00:1d.0"),
        ("0000:1d:00.1", "no-acs", "0000:00:1d.0"),
    ]
    assert (found.real, found.agrees, found.caveats) == (True, True, ())
    assert codes(found.remedies) == ["another-slot", "firmware", "together"]
    assert f"{PORT.address} (empty)" in found.remedies[0].detail
    assert found.remedies[-1].detail.endswith("vfioctl bind 2")


def test_a_card_and_its_port_need_no_remedy() -> None:
    found = explained([PORT, OPEN, *below(OPEN, 1)], 2)
    assert (found.agrees, found.remedies) == (True, ())


class TestAcsThatIsOff:
    def test_is_turned_on_by_the_command_line(self) -> None:
        found = explained([PORT, OFF, *below(OFF)], 3)
        assert {reason.code for reason in found.reasons} == {"separate", "acs-not-enabled"}
        assert codes(found.remedies) == ["config-acs", "together"]
        assert f"pci=config_acs=111x1@{OFF.address} " in found.remedies[0].detail

    def test_not_by_an_older_kernel(self) -> None:
        found = explained([PORT, OFF, *below(OFF)], 3, release="6.1.0")
        assert codes(found.remedies) == ["together"]

    @pytest.mark.parametrize(
        "option", ["disable_acs_redir=0000:00:1e.0", "config_acs=xx00xx@pci:1af4:1000;0000:00:1e.0"]
    )
    def test_or_was_by_it_turned_off(self, option: str) -> None:
        found = explained([PORT, OFF, *below(OFF)], 3, cmdline=f"quiet pci=noats,{option} ro")
        assert codes(found.caveats) == ["acs-options"] and f"pci={option}" in found.caveats[0].detail
        assert codes(found.remedies)[0] == "kernel-option"
        assert found.real is True

    def test_the_option_means_nothing_to_others(self) -> None:
        found = explained([PORT, *below(PORT, 1, 5)], 5, cmdline="pci=disable_acs_redir=0000:00:1e.0")
        assert found.caveats == ()


class TestKernelsThatDiffer:
    def test_an_acs_override(self) -> None:
        """A patched kernel keeps a card apart from its port, and says that it is isolated."""
        functions = [OPEN, *below(OPEN, 1, 9)]
        found = explained(functions, 9, cmdline="pcie_acs_override=downstream,multifunction")
        assert (found.real, found.agrees) == (False, False)
        assert codes(found.caveats) == ["acs-override", "model-differs"]
        assert OPEN.address in found.caveats[0].detail

    def test_one_without_effect(self) -> None:
        found = explained([PORT, *below(PORT, 1, 9)], 9, cmdline="pcie_acs_override=downstream")
        assert (found.real, found.agrees, codes(found.caveats)) == (True, True, ["acs-override-unused"])

    def test_what_is_kept_apart_for_a_reason_that_is_not_known(self) -> None:
        found = explained([OPEN, *below(OPEN, 1, 9)], 9)
        assert (found.real, found.agrees, codes(found.caveats)) == (None, False, ["model-differs"])
        assert "differs from the model: it keeps" in found.caveats[0].detail

    def test_acs_that_was_turned_off_later(self) -> None:
        found = explained([OFF, *below(OFF, 1, 9)], 9)
        assert (found.real, found.agrees) == (False, False)
        assert codes(found.caveats)[:2] == ["model-differs", "acs-off-now"]

    def test_what_is_joined_for_a_reason_that_is_not_known(self) -> None:
        found = explained([PORT, *below(PORT, 1, 1)], 1)
        assert (found.real, found.agrees, codes(found.caveats)) == (None, False, ["model-differs"])
        assert "it joins 0000:00:1c.0 with" in found.caveats[0].detail


class TestSwitches:
    up = function("0000:01:00.0", PORT, "upstream-port", group=10)

    def switch(self, *acs: tuple[int, int] | None) -> list[PciFunction]:
        """Its downstream ports, and a card below each; a card shares the group of a port that does not isolate."""
        found = [PORT, self.up]
        for n, each in enumerate(acs):
            down = function(f"0000:02:0{n}.0", self.up, "downstream-port", each, group=20 + n)
            card = function(f"0000:0{n + 3}:00.0", down, group=30 + n if each == FULL_ACS else 20 + n)
            found += [down, card]
        return found

    def test_siblings_that_reach_each_other(self) -> None:
        found = explained(self.switch(NO_ACS, NO_ACS), 20)
        assert (found.real, found.agrees, codes(found.caveats)) == (False, True, ["switch-siblings"] * 2)
        assert "lets 0000:03:00.0 reach 0000:04:00.0 (group 21)" in found.caveats[0].detail
        assert codes(found.remedies) == ["another-slot", "firmware"]

    @pytest.mark.parametrize(
        ("group", "who"), [(20, "0000:03:00.0 reach"), (31, "0000:03:00.0 (group 20) reach")]
    )
    def test_one_way(self, group: int, who: str) -> None:
        found = explained(self.switch(NO_ACS, FULL_ACS), group)
        assert (found.real, codes(found.caveats)) == (False, ["switch-siblings"])
        assert f"lets {who}" in found.caveats[0].detail

    def test_none_with_acs(self) -> None:
        assert explained(self.switch(FULL_ACS, FULL_ACS), 30).real is True

    def test_none_where_nothing_is_plugged_in(self) -> None:
        assert explained(self.switch(NO_ACS, NO_ACS)[:-1], 20).real is True


class TestOtherCauses:
    def test_a_quirk(self) -> None:
        pair = [function(f"0000:01:00.{n}", PORT, ids="8086:1521", multi=True, group=7 + n) for n in (0, 1)]
        found = explained([PORT, *pair], 8)
        assert (found.real, found.agrees, codes(found.caveats)) == (True, True, ["quirk"])
        assert "its vendor says" in found.caveats[0].detail

    def test_vmd(self) -> None:
        vmd = function(
            "0000:00:0e.0", None, "root-complex-endpoint", ids="8086:201d", class_="010400", group=4
        )
        top = "pci0000:00/0000:00:0e.0/pci10000:e0"
        disk = function("10000:e0:06.0", root_bus=top, class_="010802", group=4)
        found = explained([vmd, disk], 4)
        assert [reason.code for reason in found.reasons] == ["separate", "vmd"]
        assert (found.agrees, codes(found.remedies)) == (True, ["vmd-off", "together"])

    def test_virtual_functions_below_a_port_without_acs(self) -> None:
        physical = function("0000:05:00.0", OPEN, group=2)
        virtual = function("0000:05:00.1", OPEN, physfn=physical.address, group=2)
        found = explained([PORT, OPEN, physical, virtual], 2)
        assert (found.agrees, codes(found.remedies)) == (True, ["another-slot", "firmware", "together"])

    def test_no_slot_is_better(self) -> None:
        found = explained([OPEN, *below(OPEN)], 2)
        assert "no other root port of this host isolates" in found.remedies[0].detail

    def test_unknown_without_privileges(self) -> None:
        functions = [f._replace(config=f.config[:64]) for f in (PORT, OPEN, *below(OPEN))]
        found = explained(functions, 2)
        assert (found.real, found.agrees) == (None, None)
        assert codes(found.caveats) == ["unreadable"] and "run this as root" in found.caveats[0].detail

    def test_a_bridge_that_sleeps(self) -> None:
        found = explained([OPEN._replace(config=b"", asleep=True), *below(OPEN)], 2)
        assert codes(found.caveats) == ["unreadable"] and "power/control" in found.caveats[0].detail

    def test_a_bridge_that_does_not_answer(self) -> None:
        found = explained([OPEN._replace(config=b"\xff" * 4096), *below(OPEN)], 2)
        assert found.real is None and "does not answer" in found.caveats[0].detail


class TestWithoutAGroup:
    def test_the_group_that_would_be_if_the_iommu_were_on(self) -> None:
        """Nothing has turned ACS on then, and what a port could do counts."""
        functions = [f._replace(group=None) for f in (OFF, *below(OFF, 1), OPEN, *below(OPEN, 2))]
        found = explained(functions, "0000:1d:00.1", units=(), unit=None)
        assert found.devices == (OPEN.address, "0000:1d:00.0", "0000:1d:00.1")
        assert (found.group, found.rule, found.real, found.agrees) == (None, "pci", False, None)
        assert codes(found.caveats) == ["no-iommu-group"] and codes(found.remedies)[0] == "iommu"
        alone = explained(
            [f._replace(group=None) for f in (OFF, *below(OFF, 1))], OFF.address, units=(), unit=None
        )
        assert alone.devices == (OFF.address,)

    def test_one_that_gets_its_group_later(self) -> None:
        later = [f._replace(group=None) for f in below(OPEN, 1)]
        found = explained(
            [OPEN, *later], later[0].address, units=("smmu3.0x1",), unit=None, machine="aarch64"
        )
        assert found.devices == (OPEN.address, later[0].address)
        assert (found.real, found.agrees, codes(found.remedies)[0]) == (True, None, "bind")

    def test_one_that_no_iommu_serves(self) -> None:
        found = explained([PORT, function("0000:00:01.0", group=None)], "0000:00:01.0", unit=None)
        assert (found.devices, found.real, codes(found.caveats)) == (
            ("0000:00:01.0",),
            False,
            ["no-iommu-group"],
        )
        assert codes(found.reasons) == ["no-iommu-group"]

    def test_one_of_no_iommu_mode(self) -> None:
        found = explained([PORT], 1, units=(), unit=None, names="vfio-noiommu")
        assert (found.rule, found.real, found.agrees) == ("no-iommu", False, True)
        assert explained([PORT], 1, units=(), unit=None, node="/dev/vfio/noiommu-1").rule == "no-iommu"

    def test_a_group_without_members(self) -> None:
        explainer, _ = host([PORT])
        assert representative(IommuGroup(9)) is None
        assert explainer.explain(IommuGroup(9), None) == Explanation(9, "pci", (), (), None, (), (), None)


def test_conventional_cards_are_sent_to_no_slot_of_pci_express() -> None:
    bridge = function("0000:1c:00.0", PORT, "pcie-to-pci-bridge", group=2)
    cards = [function(f"0000:1e:0{n}.0", bridge, "conventional", group=2) for n in (1, 2)]
    (slot, *_) = explained([PORT, bridge, *cards], 2).remedies
    assert (
        slot.code == "another-slot"
        and "a bridge of its own" in slot.detail
        and PORT.address not in slot.detail
    )


class TestOtherRules:
    @pytest.mark.parametrize(
        ("unit", "machine", "bus", "name", "rule", "agrees"),
        [
            (IommuUnit("s390-iommu.00000003"), "s390x", "pci", None, "function-group", True),
            (None, "s390x", "pci", None, "function-group", True),
            (None, "ppc64le", "pci", "domain1-pe0", "partitionable-endpoint", True),
            (IommuUnit("iommu-phb0001"), "ppc64le", "pci", "domain3-pe0", "partitionable-endpoint", False),
            (IommuUnit("smmu3.0x9050000"), "aarch64", "platform", None, "stream-id", True),
            (IommuUnit("ivhd0"), "x86_64", "platform", None, "device-id", True),
            (VTD, "x86_64", "platform", None, "device-group", True),
            (IommuUnit("fd900000.iommu", "rk_iommu"), "aarch64", "platform", None, "single-group", None),
            (IommuUnit("smmu", "tegra-mc"), "armv7l", "platform", "gpu", "swgroup", None),
            (IommuUnit("10205000.iommu", "mtk-iommu"), "aarch64", "platform", None, "unknown", None),
            (None, "aarch64", "fsl-mc", None, "dprc", None),
            (None, "x86_64", "mdev", None, "mediated", True),
        ],
    )  # fmt: skip
    def test_by_iommu_and_bus(
        self, unit: IommuUnit | None, machine: str, bus: str, name: str | None, rule: str, agrees: bool | None
    ) -> None:
        device = Device("0001:00:00.0" if bus == "pci" else "thing", bus, 5)
        found = explained([], 5, unit=unit, machine=machine, others=[device], names=name)
        assert (found.rule, found.agrees) == (rule, agrees)
        assert codes(found.reasons) == [rule] and (
            name is None or rule == "unknown" or name in found.reasons[0].detail
        )
        assert found.real is (None if rule in ("mediated", "unknown") or agrees is False else True)
        assert rule != "unknown" or codes(found.caveats) == ["unknown"]

    def test_more_than_its_rule_allows(self) -> None:
        others = [Device(f"thing{n}", "platform", 5) for n in (0, 1)]
        found = explained([], 5, others=others)
        assert (found.rule, found.agrees, codes(found.caveats)) == ("device-group", False, ["model-differs"])
        assert found.devices == ("platform/thing0", "platform/thing1")
        shared = explained([], 5, unit=IommuUnit("smmu3.0x1"), others=others)
        assert (shared.agrees, codes(shared.remedies)) == (None, ["together"])
