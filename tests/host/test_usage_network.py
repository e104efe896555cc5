"""Interfaces in use: addresses, routes, bonds and bridges, and the caller's SSH connection."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fakes.uses import A, B, Host
from vfioctl.host.usage.callers import ssh_connections
from vfioctl.host.usage.network import Network
from vfioctl.model import Use

GLOBAL = "20010db8000000000000000000000001"
LINK_LOCAL = "fe800000000000000000000000000001"


@pytest.fixture
def eth0(host: Host) -> Host:
    host.interface("eth0")
    return host


@pytest.fixture
def stacked(host: Host) -> Host:
    """eth0 and eth1 in a bond, a VLAN over it, a bridge over that."""
    for name, address in (("eth0", A), ("eth1", B)):
        host.interface(name, address)
    for name, kind in (("bond0", "bond"), ("v7", "vlan"), ("br0", "bridge")):
        host.interface(name, None, kind=kind)
    host.stack("eth0", "bond0", master=True)
    host.stack("eth1", "bond0", master=True)
    host.stack("bond0", "v7")
    host.stack("v7", "br0", master=True)
    return host


def test_an_interface_that_does_nothing(eth0: Host) -> None:
    assert eth0.uses() == []


def test_an_ipv4_address(eth0: Host) -> None:
    eth0.route("eth0", "192.0.2.0/24")
    eth0.local4("127.0.0.1", "192.0.2.1", "198.51.100.1")
    assert eth0.uses() == [Use("address", "eth0 is up with the address 192.0.2.1")]
    assert eth0.uses(B) == []


def test_where_addresses_cannot_be_learnt_the_network_tells(eth0: Host) -> None:
    eth0.route("eth0", "192.0.2.0/24")
    assert eth0.uses() == [Use("address", "eth0 is up with the address 192.0.2.0/24")]


def test_a_route_without_an_address_of_ours(eth0: Host) -> None:
    eth0.route("eth0", "203.0.113.0/24")
    eth0.local4("127.0.0.1")
    assert eth0.uses() == []


def test_an_ipv6_address(eth0: Host) -> None:
    eth0.address6("eth0", LINK_LOCAL, "20")
    assert eth0.uses() == []
    eth0.address6("eth0", GLOBAL)
    assert eth0.uses() == [Use("address", "eth0 is up with the address 2001:db8::1")]


def test_an_interface_that_is_down(host: Host) -> None:
    host.interface("eth0", up=False)
    host.address6("eth0", GLOBAL)
    assert host.uses() == []


def test_a_default_route(eth0: Host) -> None:
    eth0.route("eth0", gateway=True)
    eth0.route6("eth0")
    assert eth0.uses() == [
        Use("default-route", "the IPv4 default route leaves through eth0"),
        Use("default-route", "the IPv6 default route leaves through eth0"),
    ]


def test_no_default_routes(eth0: Host) -> None:
    eth0.route6("eth0", flags=0x200)
    eth0.route6("eth0", flags=0x201)
    eth0.route6("lo", flags=0x3)
    eth0.route6("eth0", "ff" + "0" * 30, 8)
    eth0.append("/proc/net/route", "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0", "Iface")
    assert eth0.uses() == []


def test_a_bond_over_both_cards_with_all_above(stacked: Host) -> None:
    stacked.route("br0", gateway=True)
    stacked.address6("br0", GLOBAL)
    for address, name in ((A, "eth0"), (B, "eth1")):
        assert stacked.uses(address) == [
            Use("default-route", "the IPv4 default route leaves through br0"),
            Use("address", "br0 is up with the address 2001:db8::1"),
            Use("network-master", f"{name} belongs to bond0 (bond)"),
        ]


def test_a_vlan_is_carried(eth0: Host) -> None:
    eth0.interface("v0", None, kind="vlan")
    eth0.stack("eth0", "v0")
    assert eth0.uses() == [Use("network-master", "eth0 carries v0")]


def test_a_port_of_open_vswitch(eth0: Host) -> None:
    eth0.interface("ovs-system", None)
    eth0.stack("eth0", "ovs-system", master=True)
    assert eth0.uses() == [Use("network-master", "eth0 belongs to ovs-system")]


def test_the_route_through_another_card(eth0: Host) -> None:
    eth0.interface("v0", None)
    eth0.route("v0", gateway=True)
    assert eth0.uses() == []


@pytest.mark.parametrize("line", ["", "x", "eth0 " * 8, "eth0 " * 12, "zz " * 12, "f" * 99])
def test_nonsense_in_procfs(eth0: Host, line: str) -> None:
    for path in ("route", "ipv6_route", "if_inet6", "fib_trie"):
        eth0.put(f"/proc/net/{path}", f"heading\n{line}\n/32 host LOCAL\n{line}")
    assert eth0.uses() == []


def test_an_interface_in_another_namespace(host: Host) -> None:
    """sysfs shows the directory of the interfaces to everybody and its entries to their namespace."""
    host.directory(f"{host.homes['pci', A]}/net")
    assert host.guards() == ["network-namespace"]


def test_a_name_from_outside_is_visible(host: Host) -> None:
    host.interface("e\x1b[2J")
    host.route("e\x1b[2J", gateway=True)
    assert [use.evidence.isprintable() for use in host.uses()] == [True]


class TestSshSession:
    def uses(self, host: Host, client: str, server: str = "192.0.2.1", address: str = A) -> list[str]:
        network = Network(host.root)
        network.connections = ((client, server),)
        name = {A: "eth0", B: "eth1"}[address]
        found = network.uses([host.at(host.homes["pci", address])], [name])
        return [use.evidence for use in found if use.guard == "ssh-session"]

    @pytest.fixture
    def cards(self, host: Host) -> Host:
        """The way to 198.51.100.0/24 is eth1, all else is eth0."""
        host.interface("eth0")
        host.interface("eth1", B)
        host.route("eth0", gateway=True)
        host.route("eth1", "198.51.100.0/24", gateway=True)
        host.route("eth0", "198.51.0.0/16", gateway=True)
        host.route6("eth1")
        host.route6("eth0", GLOBAL[:16] + "0" * 16, 64)
        return host

    @pytest.mark.parametrize(
        ("client", "through"),
        [
            ("203.0.113.9", A),
            ("198.51.100.9", B),
            ("198.51.7.9", A),
            ("::ffff:198.51.100.9", B),
            ("2001:db8::9", A),
            ("2001:db9::9", B),
            ("fe80::9%eth1", B),
        ],
    )
    def test_the_longest_prefix_decides(self, cards: Host, client: str, through: str) -> None:
        evidence = [f"the caller's SSH connection from {client} comes through it"]
        for address in (A, B):
            assert self.uses(cards, client, address=address) == (evidence if address == through else [])

    def test_the_lower_metric_decides(self, host: Host) -> None:
        host.interface("eth0")
        host.interface("eth1", B)
        host.route("eth0", gateway=True, metric=200)
        host.route("eth1", gateway=True, metric=100)
        assert (self.uses(host, "203.0.113.9"), len(self.uses(host, "203.0.113.9", address=B))) == ([], 1)

    def test_the_address_it_was_made_to(self, cards: Host) -> None:
        cards.address6("eth0", GLOBAL)
        assert len(self.uses(cards, "2001:db9::9", "2001:db8::1")) == 1

    def test_nonsense(self, cards: Host) -> None:
        assert self.uses(cards, "\x1b[2J", "nonsense") == []


CALLER = "from vfioctl.host.usage.callers import ssh_connections; print(ssh_connections())"


class TestConnections:
    def test_of_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSH_CONNECTION", "203.0.113.9 4711 192.0.2.1 22")
        assert ("203.0.113.9", "192.0.2.1") in ssh_connections()

    @pytest.mark.parametrize("text", ["", "x", "a b c", "a b c d e"])
    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        before = ssh_connections()
        monkeypatch.setenv("SSH_CONNECTION", text)
        assert len(ssh_connections()) <= len(before)

    def test_of_an_ancestor(self) -> None:
        """sudo drops it."""
        child = [sys.executable, "-c", CALLER]
        script = f"import os, subprocess; subprocess.run({child!r}, env={{'PYTHONPATH': os.environ['PYTHONPATH']}})"
        environment = {
            "SSH_CONNECTION": "203.0.113.9 4711 192.0.2.1 22",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert "('203.0.113.9', '192.0.2.1')" in done.stdout
