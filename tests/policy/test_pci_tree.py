"""The hierarchy of PCI: every function once, in its place, whatever a tree of files says."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from vfioctl.model import PciFunction, PciIds
from vfioctl.policy.pci_tree import Branch, grow, select, walk

PORT = PciIds("060400", "1b36", "000c", "0000", "0000")
CARD = PciIds("020000", "8086", "10d3", "8086", "0000")


def header(first: int, last: int, header_type: int = 1) -> bytes:
    data = bytearray(64)
    data[0], data[0x0E], data[0x19], data[0x1A] = 0x86, header_type, first, last
    return bytes(data)


def function(path: str, config: bytes = b"", ids: PciIds = CARD, **more: object) -> PciFunction:
    return PciFunction(path.rpartition("/")[2], path, ids, config, **more)  # type: ignore[arg-type]


def port(path: str, first: int = 0, last: int = 0, **more: object) -> PciFunction:
    return function(path, header(first, last), PORT, **more)


TREE = (
    port("pci0000:00/0000:00:01.0", 1, 2),
    function("pci0000:00/0000:00:01.0/0000:01:00.0"),
    function("pci0000:00/0000:00:01.0/0000:01:00.1", physfn="0000:01:00.0"),
    function("pci0000:00/0000:00:01.0/0000:02:00.0", physfn="0000:01:00.0"),
    port("pci0000:00/0000:00:02.0"),
    function("pci0000:00/0000:00:0e.0"),
    function("pci0000:80/0000:80:00.0"),
    port("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", 0xE1, 0xE1),
    function("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0"),
)


def names(branches: Iterable[Branch]) -> list[str]:
    return [branch.function.address for branch in walk(branches)]


def test_places() -> None:
    first, second, domain = grow(TREE)
    assert [(root.bus, root.owner) for root in (first, second, domain)] == [
        ("0000:00", None),
        ("0000:80", None),
        ("10000:e0", "0000:00:0e.0"),
    ]
    above, empty, vmd = first.branches
    assert (above.is_bridge, above.buses) == (True, (1, 2))
    assert (empty.is_bridge, empty.buses, empty.below) == (True, (), ())
    assert not vmd.is_bridge
    (card,) = above.below
    assert names(card.virtual) == ["0000:01:00.1", "0000:02:00.0"] and card.below == ()
    assert names(domain.branches) == ["10000:e0:06.0", "10000:e1:00.0"]


def test_buses_where_the_header_has_not_been_read() -> None:
    root = "pci0000:00/0000:00:01.0"
    silent = (function(root, ids=PORT), *(function(f"{root}/0000:{bus}:00.0") for bus in ("05", "04")))
    (found,) = grow(silent)[0].branches
    assert (found.is_bridge, found.buses) == (True, (4, 5))
    gone = function(root, b"\xff" * 64, PORT)
    assert grow((gone,))[0].branches[0] == Branch(gone, True, None, (), ())
    odd = function(root, header(4, 2), PORT)
    assert grow((odd,))[0].branches[0].buses == (4, 4)


def test_a_function_without_its_bridge_lies_on_the_root_bus() -> None:
    lost = function("pci0000:00/0000:00:01.0/0000:01:00.0")
    assert names(grow((lost,))[0].branches) == [lost.address]
    nowhere = function("0000:01:00.0")
    assert [(root.bus, names(root.branches)) for root in grow((nowhere,))] == [("0000:01", ["0000:01:00.0"])]


def chosen(wanted: str, tops: set[str] | None = None) -> list[str]:
    return [f.address for f in select(TREE, lambda f: f.address.startswith(wanted), tops)]


def test_what_is_selected_comes_with_its_way_up() -> None:
    assert chosen("0000:02:00.0") == ["0000:00:01.0", "0000:01:00.0", "0000:02:00.0"]
    assert chosen("10000:e1:00.0") == ["0000:00:0e.0", "10000:e0:06.0", "10000:e1:00.0"]
    assert chosen("9") == []


def test_what_is_named_comes_with_what_is_below() -> None:
    assert chosen("", {"0000:01:00.0"}) == ["0000:00:01.0", "0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]
    assert chosen("", {"0000:00:0e.0"}) == ["0000:00:0e.0", "10000:e0:06.0", "10000:e1:00.0"]
    assert chosen("0000:02", {"0000:00:01.0"}) == chosen("0000:02:00.0")
    assert chosen("0000:80", {"0000:00:01.0"}) == []


ADDRESSES = [
    f"0000:{bus:02x}:{slot:02x}.{number}" for bus in (0, 1) for slot in (0, 0x1F) for number in (0, 7)
]
PARTS = st.sampled_from([*ADDRESSES, "pci0000:00", "pci10000:e0"])


@st.composite
def hosts(draw: st.DrawFn) -> list[PciFunction]:
    """Functions with paths and physical functions that contradict each other."""
    found = []
    for address in draw(st.lists(st.sampled_from(ADDRESSES), unique=True)):
        path = "/".join([*draw(st.lists(PARTS, max_size=4)), address])
        physfn = draw(st.none() | st.sampled_from(ADDRESSES))
        config = draw(st.sampled_from([b"", b"\xff" * 64, header(1, 3), header(0, 0), header(0, 0, 0)]))
        found.append(PciFunction(address, path, draw(st.sampled_from([PORT, CARD])), config, physfn=physfn))
    return found


@given(hosts())
def test_every_function_appears_once(functions: list[PciFunction]) -> None:
    shown = [name for root in grow(functions) for name in names(root.branches)]
    assert sorted(shown) == sorted(f.address for f in functions)


@given(hosts(), st.sampled_from(ADDRESSES))
def test_the_way_up_is_whole(functions: list[PciFunction], address: str) -> None:
    """What is selected lies where it lies in the whole tree."""

    def places(found: Iterable[PciFunction]) -> dict[str, str | None]:
        trees = grow(tuple(found))
        places: dict[str, str | None] = {b.function.address: None for t in trees for b in t.branches}
        for tree in trees:
            for branch in walk(tree.branches):
                hanging = (*branch.virtual, *branch.below)
                places |= {each.function.address: branch.function.address for each in hanging}
        return places

    all_places = places(functions)
    found = places(select(functions, lambda f: f.address == address))
    assert (address in found) == (address in all_places)
    assert found.items() <= all_places.items()
