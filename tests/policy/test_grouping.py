"""The groups of PCI functions: those that Linux made, and cases that no emulator has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.functions import ACS_OFF, FULL_ACS, NO_ACS, TYPES, function, load
from vfioctl.model import PciFunction
from vfioctl.policy.topology.grouping import Placement, Topology, predict
from vfioctl.policy.topology.isolation import Host

ON = Host()
Blocks = set[frozenset[str]]


def place(
    functions: Collection[PciFunction], host: Host = ON, taken: Iterable[str] | None = None
) -> dict[str, Placement]:
    served = {each.address for each in functions if each.group is not None} if taken is None else set(taken)
    return predict(Topology(functions, host), served)


def blocks(groups: Mapping[str, object]) -> Blocks:
    return {frozenset(a for a in groups if groups[a] == group) for group in set(groups.values())}


def predicted(functions: Collection[PciFunction], host: Host = ON) -> Blocks:
    return blocks({address: each.group for address, each in place(functions, host).items()})


def codes(placed: Mapping[str, Placement], subject: PciFunction) -> list[tuple[str, str | None]]:
    return [(reason.code, reason.bridge) for reason in placed[subject.address].reasons]


@pytest.mark.parametrize("name", ["intel", "amd"])
def test_the_kernels_groups(name: str) -> None:
    """Ports with and without ACS, bridges of both kinds, a switch, multifunction devices, the IOMMU's own function."""
    functions = load(name)
    kernels = {each.address: each.group for each in functions if each.group is not None}
    assert len(kernels) == {"intel": 34, "amd": 26}[name]
    assert predicted(functions, Host(amd_vi=name == "amd")) == blocks(kernels)


@pytest.mark.parametrize("name", ["intel", "amd"])
def test_the_first_64_bytes_say_nothing_wrong(name: str) -> None:
    whole = load(name)
    short = place([each._replace(config=each.config[:64]) for each in whole])
    assert sum(each.group is None for each in short.values()) >= 10
    assert sum(each.group is not None for each in short.values()) >= 6
    assert_within(short, place(whole))


def assert_within(partly: Mapping[str, Placement], fully: Mapping[str, Placement]) -> None:
    """What is known with less to go by is what is known with more."""
    for one, other in ((a, b) for a in partly for b in partly):
        if partly[one].group is not None and partly[other].group is not None:
            together = partly[one].group == partly[other].group
            assert together == (fully[one].group == fully[other].group), (one, other)
    for address, place in partly.items():
        assert (place.group is None) == any(reason.code == "unreadable" for reason in place.reasons), address


class TestPath:
    def test_a_port_that_isolates(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        card = function("0000:01:00.0", port)
        placed = place([port, card])
        assert codes(placed, card) == [("separate", None)]
        assert placed[port.address].group != placed[card.address].group

    @pytest.mark.parametrize(("acs", "code"), [(NO_ACS, "no-acs"), (ACS_OFF, "acs-not-enabled")])
    def test_a_port_that_does_not(self, acs: tuple[int, int] | None, code: str) -> None:
        port = function("0000:00:1c.0", None, "root-port", acs)
        card = function("0000:01:00.0", port)
        placed = place([port, card])
        assert codes(placed, card) == [(code, port.address)]
        assert placed[port.address].group == placed[card.address].group

    def test_all_bridges_above_count(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", NO_ACS)
        up = function("0000:01:00.0", port, "upstream-port")
        down = [function(f"0000:02:0{n}.0", up, "downstream-port", FULL_ACS) for n in (0, 1)]
        cards = [function(f"0000:0{n + 3}:00.0", down[n]) for n in (0, 1)]
        assert predicted([port, up, *down, *cards]) == {
            frozenset(f.address for f in (port, up, *down, *cards))
        }
        assert codes(place([port, up, *down, *cards]), cards[0]) == [("no-acs", port.address)]

    def test_siblings_below_a_switch_are_not_looked_at(self) -> None:
        """That is the kernel's rule up to 7.3; advice says what is wrong with it."""
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        up = function("0000:01:00.0", port, "upstream-port")
        down = [function(f"0000:02:0{n}.0", up, "downstream-port", NO_ACS) for n in (0, 1)]
        cards = [function(f"0000:0{n + 3}:00.0", down[n]) for n in (0, 1)]
        assert predicted([port, up, *down, *cards]) == {
            frozenset({port.address}), frozenset({up.address}),
            frozenset({down[0].address, cards[0].address}), frozenset({down[1].address, cards[1].address}),
        }  # fmt: skip

    def test_a_bridge_that_the_iommu_does_not_serve_is_passed(self) -> None:
        """Two cards that both can talk past the IOMMU, and no group above to meet in: the kernel leaves them apart."""
        port = function("0000:00:1c.0", None, "root-port", NO_ACS, group=None)
        one = function("0000:01:00.0", port)
        assert place([port, one])[one.address].group == 0
        assert codes(place([port, one]), one) == [("no-acs", port.address), ("separate", None)]


class TestAliases:
    @pytest.mark.parametrize("kind", ["pcie-to-pci-bridge", "pci-to-pcie-bridge", "conventional"])
    def test_bridges_that_speak_for_what_is_behind(self, kind: str) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        bridge = function("0000:01:00.0", port, kind, class_="060400")
        cards = [function(f"0000:02:0{n}.0", bridge, "conventional") for n in (1, 2)]
        placed = place([port, bridge, *cards])
        assert {placed[each.address].group for each in (bridge, *cards)} == {placed[bridge.address].group}
        assert codes(placed, cards[0]) == [("bridge-alias", bridge.address)]
        assert placed[port.address].group != placed[bridge.address].group

    def test_one_that_does_not(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        bridge = function("0000:01:00.0", port, "pcie-to-pci-bridge", ids="1a03:1150")
        card = function("0000:02:00.0", bridge, "conventional")
        assert codes(place([port, bridge, card]), card) == [("bridge", bridge.address)]

    def test_above_a_translation_root_nothing_counts(self) -> None:
        top = function("0000:00:00.0", None, "conventional", class_="060400", group=None)
        root = function("0000:01:00.0", top, "conventional", ids="14e4:9084", class_="060400", group=None)
        card = function("0000:02:00.0", root)
        assert ("bridge-alias", top.address) not in codes(place([top, root, card]), card)

    @pytest.mark.parametrize(
        ("ids", "subsystem", "partner"),
        [
            ("1b4b:9230", "0000:0000", "0000:01:00.1"),
            ("1180:e832", "0000:0000", "0000:01:00.0"),
            ("9005:0285", "9005:02bb", "0000:01:01.0"),
            ("10b5:87b0", "0000:0000", "0000:01:1f.7"),
            ("8086:2260", "0000:0000", "0000:01:12.3"),
            ("8086:2954", "0000:0000", "0000:01:1f.4"),
        ],
    )
    def test_models_that_speak_for_others(self, ids: str, subsystem: str, partner: str) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        odd = function("0000:01:00.5", port, ids=ids, subsystem=subsystem, acs=FULL_ACS)
        other = function(partner, port, acs=FULL_ACS, multi=True)
        placed = place([port, odd, other])
        assert placed[odd.address].group == placed[other.address].group
        late = max((odd, other), key=lambda each: each.address)
        assert [code for code, _ in codes(placed, late)] == ["dma-alias-quirk"]
        plain = place([port, odd._replace(ids=other.ids), other])
        assert plain[odd.address].group != plain[other.address].group


class TestSlots:
    def test_functions_that_nothing_keeps_apart(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        first, second = function("0000:01:00.0", port, multi=True), function("0000:01:00.1", port)
        placed = place([port, first, second])
        assert codes(placed, first) == [("separate", None)]
        assert codes(placed, second) == [("multifunction", first.address)]

    def test_functions_with_acs(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        pair = [function(f"0000:01:00.{n}", port, acs=FULL_ACS, multi=True) for n in (0, 1)]
        assert len(predicted([port, *pair])) == 3

    def test_only_those_that_are_open_meet(self) -> None:
        """Intel's integrated endpoints are isolated beside a conventional function (as seen in the dumps)."""
        old = function("0000:00:07.0", None, "conventional")
        new = function("0000:00:07.1", None, "root-complex-endpoint", ids="8086:10d3")
        older = function("0000:00:07.2", None, "conventional")
        assert predicted([old, new, older]) == {
            frozenset({old.address, older.address}), frozenset({new.address})
        }  # fmt: skip

    def test_virtual_functions_are_single(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
        physical = function("0000:01:00.0", port)
        virtual = [function(f"0000:01:00.{n}", port, physfn=physical.address) for n in (1, 2)]
        assert len(predicted([port, physical, *virtual])) == 4

    def test_and_go_where_the_ports_above_let_them(self) -> None:
        port = function("0000:00:1c.0", None, "root-port", NO_ACS)
        physical = function("0000:01:00.0", port)
        virtual = function("0000:01:00.1", port, physfn=physical.address)
        assert predicted([port, physical, virtual]) == {
            frozenset(f.address for f in (port, physical, virtual))
        }

    def test_ports_of_one_slot_take_with_them_what_is_below(self) -> None:
        ports = [function(f"0000:00:1c.{n}", None, "root-port", NO_ACS, multi=True) for n in (0, 1)]
        cards = [function(f"0000:0{n + 1}:00.0", ports[n]) for n in (0, 1)]
        assert len(predicted([*ports, *cards])) == 1


def test_what_is_behind_vmd_goes_with_it() -> None:
    vmd = function("0000:00:0e.0", None, "root-complex-endpoint", ids="8086:201d")
    port = function(
        "10000:e0:06.0", None, "root-port", NO_ACS, root_bus="pci0000:00/0000:00:0e.0/pci10000:e0"
    )
    disk = function("10000:e1:00.0", port)
    placed = place([vmd, port, disk])
    assert {each.group for each in placed.values()} == {0}
    assert codes(placed, disk) == [("vmd", vmd.address)]
    alone = place([vmd._replace(group=None), port, disk])
    assert codes(alone, disk) == [("vmd", vmd.address), ("separate", None)]


def test_what_cannot_be_known_does_not_spread_further_than_it_must() -> None:
    port = function("0000:00:1c.0", None, "root-port", FULL_ACS)
    hidden = function("0000:01:00.0", port, "upstream-port")._replace(config=b"")
    below = function("0000:02:00.0", hidden)
    beside = function("0000:00:02.0", None, "conventional")
    placed = place([port, hidden, below, beside])
    assert codes(placed, below) == [("unreadable", hidden.address)]
    assert {a for a, each in placed.items() if each.group is None} == {below.address}


def test_a_bridge_that_leads_in_a_circle_ends() -> None:
    """No kernel has one, but a directory that is given with --root may."""
    one = function("0000:01:00.0")._replace(path="pci0000:00/0000:01:01.0/0000:01:00.0")
    other = function("0000:01:01.0")._replace(path="pci0000:00/0000:01:00.0/0000:01:01.0")
    lost = function("0000:01:02.0")._replace(path="0000:01:02.0")
    assert set(place([one, other, lost])) == {one.address, other.address, lost.address}


REGISTERS = (NO_ACS, ACS_OFF, FULL_ACS, (0x01, 0x01), (0x1F, 0x11))
MODELS = ("1af4:1000", "1b4b:9230", "1180:e832", "8086:1521", "1a03:1150", "10b5:87b0")
KINDS = ("conventional", *TYPES)
ONE = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.sampled_from(KINDS), st.sampled_from(REGISTERS), st.sampled_from(MODELS),
    st.booleans(),
)  # fmt: skip
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BUSES = st.lists(st.tuples(st.integers(0, 7), st.lists(ONE, min_size=1, max_size=4)), min_size=1, max_size=4)


def build(
    buses: list[tuple[int, list[tuple[int, int, str, tuple[int, int] | None, str, bool]]]],
) -> list[PciFunction]:
    """Any tree of bridges and functions, with any registers: each bus is below a bridge of one before."""
    found: dict[str, PciFunction] = {}
    for number, (place_above, listed) in enumerate(buses):
        bridges = [each for each in found.values() if each.ids.class_ == "060400"]
        if number and not bridges:
            break
        above = bridges[place_above % len(bridges)] if number else None
        for slot, each, kind, acs, ids, multi in listed:
            made = function(f"0000:{number:02x}:{slot:02x}.{each}", above, kind, acs, ids=ids, multi=multi)
            found.setdefault(made.address, made)
    return list(found.values())


@many
@given(BUSES.map(build), st.lists(st.sampled_from([0, 64, 4096]), min_size=3, max_size=3))
def test_less_to_go_by_never_says_anything_else(functions: list[PciFunction], sizes: list[int]) -> None:
    short = [each._replace(config=each.config[: sizes[i % 3]]) for i, each in enumerate(functions)]
    assert_within(place(short), place(functions))


@many
@given(BUSES.map(build), st.randoms(use_true_random=False))
def test_neither_their_order_nor_the_kernels_numbers_matter(
    functions: list[PciFunction], random: object
) -> None:
    shuffled = [each._replace(group=index + 7) for index, each in enumerate(functions)]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert predicted(shuffled) == predicted(functions)


@many
@given(BUSES.map(build))
def test_acs_on_everywhere_never_joins_more(functions: list[PciFunction]) -> None:
    def with_acs(each: PciFunction) -> PciFunction:
        data = bytearray(each.config)
        if len(data) == 4096:
            data[0x100:0x108] = bytes.fromhex("0d000100 1f00 1d00")
        return each._replace(config=bytes(data))

    assert len(predicted([with_acs(each) for each in functions])) >= len(predicted(functions))
