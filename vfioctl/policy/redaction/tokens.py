"""Tokens for secrets, with one key."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from functools import cache

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_UUID = r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-fA-F])"
_MAC = r"(?<![0-9a-fA-F:])[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}(?![0-9a-fA-F:])"
#: An interface that udev has called after its address: enx525400123456.
_NAMED_BY_MAC = r"(?<=enx)[0-9a-f]{12}(?![0-9a-f])"
_SECRETS = {"uuid": re.compile(_UUID), "mac": re.compile(f"{_MAC}|{_NAMED_BY_MAC}")}

#: Networks whose addresses are the same everywhere, and networks of which only the hosts are told apart.
_SAME = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8")))
_KEPT = tuple(
    map(
        ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fe80::/64")
    )
)


class Tokens:
    """``key`` is random and secret; ``words`` are names of the host and of its users. ``counts`` of the secrets that
    have been replaced, by kind."""

    def __init__(self, key: bytes, words: Iterable[str] = ()) -> None:
        self._key = key
        self._found: dict[str, set[str]] = {}
        listed = "|".join(sorted(map(re.escape, set(words) - {""}), key=len, reverse=True))
        self._words = (
            re.compile(rf"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])", re.IGNORECASE) if listed else None
        )

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(found) for kind, found in sorted(self._found.items())}

    def digits(self, kind: str, secret: str, number: int) -> str:
        """So many hexadecimal digits for a secret."""
        self._found.setdefault(kind, set()).add(secret)
        return self._digest(f"{kind}:{secret}".encode()).hex()[:number]

    def name(self, secret: str, kind: str = "name") -> str:
        """A word for a secret of no special form."""
        return f"{kind}-{self.digits(kind, secret, 8)}" if secret else ""

    def text(self, text: str) -> str:
        """A text without UUIDs and MAC addresses. Their tokens have the same form, and the same punctuation."""
        for kind, pattern in _SECRETS.items():
            text = pattern.sub(lambda found, kind=kind: self._like(kind, found[0]), text)  # type: ignore[misc]
        return text

    def prose(self, text: str) -> str:
        """A text that people have written, without the names of the host and of its users too."""
        text = self.text(text)
        return self._words.sub(lambda found: self.name(found[0].lower()), text) if self._words else text

    def address(self, text: str) -> str:
        """An address of the network; what is none is a name."""
        bare, percent, scope = text.partition("%")
        try:
            found = ipaddress.ip_address(bare)
        except ValueError:
            return self.name(text, "address")
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        moved = f"::ffff:{self.moved(mapped)}" if mapped else str(self.moved(found))
        return f"{moved}{percent}{scope}"

    def moved(self, address: IpAddress, length: int | None = None) -> IpAddress:
        """Another address for an address, or for a network of so many bits. Two that begin with the same bits begin
        with as many same bits afterwards, so that networks contain what they did."""
        if any(address in network for network in _SAME):
            return address
        bits = address.max_prefixlen
        value = 0
        for index in range(bits if length is None else length):
            prefix = int(address) >> (bits - index)
            bit = int(address) >> (bits - index - 1) & 1
            value |= (bit ^ _flips(self._key, prefix, index, address.version)) << (bits - index - 1)
        if value != int(address):
            self._found.setdefault("address", set()).add(str(address))
        return type(address)(value)

    def _like(self, kind: str, secret: str) -> str:
        digits = iter(self.digits(kind, re.sub("[^0-9a-f]", "", secret.lower()), 32))
        return re.sub("[0-9a-fA-F]", lambda _: next(digits), secret)

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=16).digest()


@cache
def _flips(key: bytes, prefix: int, length: int, version: int) -> int:
    """Whether the bit after a prefix is another one afterwards. It stays on the way to a network that has a meaning of
    its own."""
    for network in (*_SAME, *_KEPT):
        if network.version == version and length < network.prefixlen:
            start = int(network.network_address) >> (network.max_prefixlen - length)
            if start == prefix:
                return 0
    data = f"{version}:{length}:{prefix}".encode()
    return hashlib.blake2b(data, key=key, digest_size=1).digest()[0] & 1
