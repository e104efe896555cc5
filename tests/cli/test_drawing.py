"""The drawing of the hierarchy, line by line, and the graph for Graphviz."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_pci_tree import PORT, TREE, function, hosts, port
from vfioctl.cli import dot, drawing, pci_records
from vfioctl.errors import visible
from vfioctl.model import PciFunction
from vfioctl.policy.pci_tree import grow


def drawn(functions: Sequence[PciFunction]) -> list[str]:
    return [line.text for line in drawing.draw(grow(functions))]


def test_a_drawing() -> None:
    assert drawn(TREE) == [
        r"-[0000:00]-+-01.0-[01-02]",
        r"           |  \-00.0",
        r"           |     +-00.1 VF",
        r"           |     \-02:00.0 VF",
        r"           +-02.0-[]",
        r"           \-0e.0=[10000:e0]",
        r"-[0000:80]---00.0",
        r"-[10000:e0]---06.0-[e1]",
        r"               \-00.0",
    ]


def test_bars_go_on_beside_what_hangs() -> None:
    top = "pci0000:00/0000:00:0c.0"
    up = f"{top}/0000:06:00.0"
    switch = (
        port(top, 6, 8),
        port(up, 7, 8),
        port(f"{up}/0000:07:00.0", 8, 8),
        function(f"{up}/0000:07:00.0/0000:08:00.0"),
        port(f"{up}/0000:07:01.0"),
        port("pci0000:00/0000:00:0d.0", 9, 9),
        function("pci0000:00/0000:00:0d.0/0000:09:00.0"),
        function("pci0000:00/0000:00:0d.0/0000:09:00.1"),
    )
    assert drawn(switch) == [
        r"-[0000:00]-+-0c.0-[06-08]",
        r"           |  \-00.0-[07-08]",
        r"           |     +-00.0-[08]",
        r"           |     |  \-00.0",
        r"           |     \-01.0-[]",
        r"           \-0d.0-[09]",
        r"              +-00.0",
        r"              \-00.1",
    ]


def test_addresses_are_as_long_as_they_must_be() -> None:
    """What is on another bus than its place says has its bus; of another domain, all of it."""
    odd = (
        function("pci0000:00/0000:01:00.0"),
        function("pci0000:00/0001:01:00.0"),
        port("pci0000:00/0000:00:01.0", 4, 4),
        function("pci0000:00/0000:00:01.0/0000:05:00.0"),
    )
    assert drawn(odd) == [
        r"-[0000:00]-+-01:00.0",
        r"           +-0001:01:00.0",
        r"           \-01.0-[04]",
        r"              \-05:00.0",
    ]
    assert drawn([function("pci0000:00/0000:00:01.0", ids=PORT)]) == ["-[0000:00]---01.0-[?]"]
    assert drawn(()) == []


@given(hosts())
def test_a_line_for_every_function(functions: list[PciFunction]) -> None:
    lines = list(drawing.draw(grow(functions)))
    assert sorted(line.branch.function.address for line in lines) == sorted(f.address for f in functions)
    records = [
        r for root in grow(functions) for r in pci_records.walk(pci_records.root(root, {})["functions"])
    ]
    assert [record["address"] for record in records] == [line.branch.function.address for line in lines]


def test_columns_and_widths() -> None:
    lines = list(drawing.draw(grow(TREE[-3:-2])))
    rows = drawing.columns(lines, ("group", "driver"), [[("12", ""), ("e1000e", "red")]])
    assert rows == [
        [("TREE              ", "bold"), ("GROUP ", "bold"), ("DRIVER", "bold")],
        [("-[0000:80]---00.0 ", ""), ("12    ", ""), ("e1000e", "red")],
    ]
    whole = "-[0000:80]---00.0 12    e1000e"
    for width in range(1, 40):
        cut = "".join(text for text, _ in drawing.fit(rows[1], width))
        assert cut == (whole if width >= len(whole) else whole[: width - 1] + ">")
    assert drawing.columns([], (), []) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "?"),
        ({"present": False, "supported": [], "enabled": []}, "-"),
        ({"present": True, "supported": [], "enabled": []}, "none"),
        ({"present": True, "supported": ["SV", "TB", "RR", "DT"], "enabled": ["SV", "DT"]}, "SV+RR-DT+"),
    ],
)
def test_words_of_acs(value: dict[str, object] | None, words: str) -> None:
    assert pci_records.acs_words(value) == words


@pytest.mark.parametrize(
    ("speed", "width", "max_speed", "max_width", "words"),
    [
        ("8.0 GT/s PCIe", 8, "8.0 GT/s PCIe", 8, "x8@8.0GT/s"),
        ("8.0 GT/s PCIe", 8, "16.0 GT/s PCIe", 16, "x8@8.0GT/s<x16@16.0GT/s"),
        (None, None, "2.5 GT/s PCIe", 1, "down<x1@2.5GT/s"),
        ("5.0 GT/s PCIe", 1, None, None, "x1@5.0GT/s"),
    ],
)
def test_words_of_links(
    speed: str | None, width: int | None, max_speed: str | None, max_width: int | None, words: str
) -> None:
    value = {"speed": speed, "width": width, "max_speed": max_speed, "max_width": max_width}
    assert pci_records.link_words(value) == words
    assert pci_records.link_words(None) is None


TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|->|[{}\[\]=;,]|\w+)')


def tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        assert match, text[at:]
        yield match[1]
        at = match.end()


def read_dot(text: str) -> tuple[dict[str, list[str]], set[tuple[str, str]]]:
    """The clusters with their nodes, and the edges; asserts that the rest is in balance."""
    found, edges = {"": list[str]()}, set()
    words, cluster, depth = list(tokens(text)), "", 0
    for index, word in enumerate(words):
        depth += {"{": 1, "}": -1}.get(word, 0)
        if word == "subgraph":
            cluster = words[index + 1].strip('"')
            found[cluster] = []
        elif word == "}":
            cluster = ""
        elif word == "->":
            edges.add((words[index - 1].strip('"'), words[index + 1].strip('"')))
        elif word.startswith('"') and words[index + 1 : index + 3] == ["[", "label"]:
            found[cluster].append(word.strip('"'))
    assert depth == 0 and words[:3] == ["digraph", "pci", "{"] and words[-1] == "}"
    return found, edges


def graph_of(functions: Sequence[PciFunction]) -> str:
    roots = grow(functions)
    records = [r for root in roots for r in pci_records.walk(pci_records.root(root, {})["functions"])]
    return "\n".join(dot.graph(roots, {record["address"]: record for record in records}, {}))


def test_a_graph() -> None:
    grouped = [f._replace(group=7) if f.address.startswith("0000:01") else f for f in TREE]
    clusters, edges = read_dot(graph_of(grouped))
    assert clusters["cluster_7"] == ["0000:01:00.0", "0000:01:00.1"]
    assert sorted(node for nodes in clusters.values() for node in nodes) == sorted(f.address for f in TREE)
    assert edges == {
        ("0000:00", "0000:00:01.0"),
        ("0000:00:01.0", "0000:01:00.0"),
        ("0000:01:00.0", "0000:01:00.1"),
        ("0000:01:00.0", "0000:02:00.0"),
        ("0000:00", "0000:00:02.0"),
        ("0000:00", "0000:00:0e.0"),
        ("0000:80", "0000:80:00.0"),
        ("0000:00:0e.0", "10000:e0"),
        ("10000:e0", "10000:e0:06.0"),
        ("10000:e0:06.0", "10000:e1:00.0"),
    }


@given(st.text(min_size=1))
def test_hostile_names_in_a_graph(name: str) -> None:
    text = graph_of([function("pci0000:00/0000:00:00.0", driver=name)])
    clusters, edges = read_dot(text)
    assert clusters == {"": ["0000:00:00.0"]} and edges == {("0000:00", "0000:00:00.0")}
    assert visible(name).replace("\\", "\\\\").replace('"', '\\"') in text
    assert all(line.isprintable() for line in text.splitlines())
