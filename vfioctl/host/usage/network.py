"""Network interfaces in use: addresses, routes, what is stacked on them, and the caller's own SSH connection.

The routes are those of the main table (/proc/net/route and ipv6_route).
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Literal, NamedTuple

from vfioctl.errors import visible
from vfioctl.host.files import link_name, names, read
from vfioctl.host.recorded import recorded
from vfioctl.host.usage.callers import ssh_connections
from vfioctl.model import Use

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200
_IFF_UP = 0x1
_SCOPE_LINK = "20"


class Route(NamedTuple):
    """A route that leaves through an interface."""

    interface: str
    to: IpNetwork
    metric: int
    gateway: bool


class Network:
    """The interfaces of the host; ``connections`` are the caller's (see callers.py)."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._record = recorded(root)
        self._byteorder = sys.byteorder if self._record is None else self._record.byteorder
        self.connections = self._record.connections if self._record is not None else ()
        if root == "/":
            self.connections = ssh_connections()

    @cached_property
    def routes(self) -> list[Route]:
        """All routes of both versions that leave the host."""
        found: list[Route] = []
        route4 = partial(_route4, byteorder=self._byteorder)
        for parse, path, heading in ((route4, "proc/net/route", 1), (_route6, "proc/net/ipv6_route", 0)):
            for line in (read(os.path.join(self._root, path)) or "").split("\n")[heading:]:
                with contextlib.suppress(ValueError, IndexError):
                    found += parse(line.split())
        return found

    def uses(self, tops: Sequence[str], carried: Sequence[str]) -> Iterator[Use]:
        """The uses of the interfaces ``carried`` by the devices with the real sysfs paths ``tops``."""
        stacked = list(dict.fromkeys(self._with_uppers(carried)))
        for route in self.routes:
            if route.interface in stacked and route.to.prefixlen == 0:
                version = route.to.version
                yield Use(
                    "default-route",
                    visible(f"the IPv{version} default route leaves through {route.interface}"),
                )
        for client, server in self.connections:
            name = self.way_to(client) or ""
            if name in stacked or any(server in self.addresses(name) for name in stacked):
                yield Use(
                    "ssh-session", visible(f"the caller's SSH connection from {client} comes through it")
                )
        for name in stacked:
            if self._is_up(name):
                for address in self.addresses(name):
                    yield Use("address", visible(f"{name} is up with the address {address}"))
        for name in carried:
            for upper in self._uppers(name):
                yield Use("network-master", visible(f"{name} {self._relation(name, upper)}"))
        for top in tops:
            # sysfs shows the interfaces of the reader's network namespace only, but the directory of all.
            if os.path.isdir(os.path.join(top, "net")) and not names(os.path.join(top, "net")):
                yield Use("network-namespace", "its network interface is in another network namespace")

    def way_to(self, address: str) -> str | None:
        """The interface through which packets to ``address`` leave: the longest prefix, then the lowest metric."""
        text, _, scope = address.partition("%")
        if scope:
            return scope
        wanted = _address(text)
        fitting = [route for route in self.routes if wanted is not None and wanted in route.to]
        fitting.sort(key=lambda route: (-route.to.prefixlen, route.metric))
        return fitting[0].interface if fitting else None

    def addresses(self, interface: str) -> list[str]:
        """The addresses of an interface, but for the link's own of IPv6. IPv4's are those that are local in a network
        which the interface is connected to, or the network itself where they cannot be learnt."""
        found = [address for name, address in self._addresses6 if name == interface]
        for route in self.routes:
            if route.interface == interface and route.to.version == 4 and not route.gateway:
                within = [str(address) for address in self._local4 if address in route.to]
                found += within or ([] if self._local4 else [str(route.to)])
        told = self._record and self._record.addresses.get(interface)
        if self._root == "/":
            from vfioctl.host.ioctl import interface_address

            told = interface_address(interface)
        return list(dict.fromkeys([*found, told] if told else found))

    @cached_property
    def _local4(self) -> list[ipaddress.IPv4Address]:
        lines = (read(os.path.join(self._root, "proc/net/fib_trie")) or "").split("\n")
        pairs = itertools.pairwise(lines)
        local = {
            _address(line.split()[-1]) for line, after in pairs if after.split() == ["/32", "host", "LOCAL"]
        }
        return sorted(address for address in local if isinstance(address, ipaddress.IPv4Address))

    @cached_property
    def _addresses6(self) -> list[tuple[str, str]]:
        lines = (read(os.path.join(self._root, "proc/net/if_inet6")) or "").split("\n")
        found = []
        for fields in map(str.split, lines):
            if len(fields) == 6 and fields[3] != _SCOPE_LINK:
                with contextlib.suppress(ValueError):
                    found.append((fields[5], str(ipaddress.IPv6Address(int(fields[0], 16)))))
        return found

    def _is_up(self, interface: str) -> bool:
        flags = read(os.path.join(self._root, "sys/class/net", interface, "flags"))
        return flags is None or int(flags or "0", 16) & _IFF_UP != 0

    def _uppers(self, interface: str) -> list[str]:
        entries = names(os.path.join(self._root, "sys/class/net", interface))
        return [entry[6:] for entry in entries if entry.startswith("upper_")]

    def _with_uppers(self, found: Sequence[str]) -> Iterator[str]:
        """Interfaces, and what is stacked on them: bonds, bridges, VLANs, each on the other."""
        for name in found:
            yield name
            yield from self._with_uppers(self._uppers(name))

    def _relation(self, interface: str, upper: str) -> str:
        top = os.path.join(self._root, "sys/class/net")
        if link_name(os.path.join(top, interface, "master")) != upper:
            return f"carries {upper}"
        known = (read(os.path.join(top, upper, "uevent")) or "").split("\n")
        kind = next((line[8:] for line in known if line.startswith("DEVTYPE=")), None)
        return f"belongs to {upper}" + (f" ({kind})" if kind else "")


def _address(text: str) -> IpAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _route4(fields: Sequence[str], byteorder: Literal["little", "big"]) -> Iterator[Route]:
    """One line of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask."""
    flags = int(fields[3], 16)
    if flags & _RTF_UP and not flags & _RTF_REJECT:
        to, mask = (_native4(fields[index], byteorder) for index in (1, 7))
        network = ipaddress.IPv4Network((to, str(mask)), strict=False)
        yield Route(fields[0], network, int(fields[6]), bool(flags & _RTF_GATEWAY))


def _native4(digits: str, byteorder: Literal["little", "big"]) -> ipaddress.IPv4Address:
    """The kernel prints the four bytes as one number of its own byte order (net/ipv4/fib_trie.c)."""
    return ipaddress.IPv4Address(int(digits, 16).to_bytes(4, byteorder))


def _route6(fields: Sequence[str]) -> Iterator[Route]:
    """One line of /proc/net/ipv6_route: destination, its length, source, its length, next hop, metric, reference
    count, use, flags, interface; the numbers are hexadecimal."""
    flags = int(fields[8], 16)
    if flags & _RTF_UP and not flags & _RTF_REJECT and fields[9] != "lo":
        network = ipaddress.IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False)
        yield Route(fields[9], network, int(fields[5], 16), bool(flags & _RTF_GATEWAY))
