"""Devices that another tool has claimed: driverctl, a running libvirt domain, Proxmox.

What these files hold was written by others: it is read up to a size, and a document with a type of its own (which
could define entities) is not parsed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vfioctl.errors import visible
from vfioctl.host.files import GONE, forbidden, names
from vfioctl.host.recorded import recorded
from vfioctl.model import Use

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DRIVERCTL = "etc/driverctl.d"
_LIBVIRT = ("run/libvirt/qemu", "run/libvirt/lxc")
_PROXMOX = "run/qemu-server/pci-id-reservations"
_LIMIT = 4 << 20


class Claims:
    """The claims of all tools; ``unseen`` are the paths that the caller may not read."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.unseen: list[str] = []
        record = recorded(root)
        #: Seconds since 1970; a tree of files that does not say when it was made is of no time.
        self._now = record.time if record is not None else time.time() if root == "/" else 0.0
        self._reserved = list(self._libvirt()) + list(self._proxmox())

    def uses(self, key: str) -> Iterator[Use]:
        """The claims on the device ``bus/address``."""
        bus, _, address = key.partition("/")
        path = f"{_DRIVERCTL}/{bus}-{address}"
        driver = (self._text(path) or "").strip()
        if driver:
            yield Use("driverctl", visible(f"/{path} gives it to the driver {driver}"), driver=driver)
        if bus == "pci":
            yield from (use for pattern, use in self._reserved if re.fullmatch(pattern, address))
        if self.unseen:
            yield Use("unseen", f"only root may read {', '.join(self.unseen)}", refuses=False)

    def _libvirt(self) -> Iterator[tuple[str, Use]]:
        """(pattern of an address, use) of the status files of running domains."""
        for directory in _LIBVIRT:
            with self._told(directory):
                for file in names(os.path.join(self._root, directory)):
                    text = self._text(f"{directory}/{file}") if file.endswith(".xml") else None
                    for address in source_addresses(text or ""):
                        evidence = f"the running libvirt domain {file.removesuffix('.xml')} has it"
                        yield re.escape(address), Use("libvirt", visible(evidence))

    def _proxmox(self) -> Iterator[tuple[str, Use]]:
        """(pattern of an address, use) of the reservations (qemu-server, PVE/QemuServer/PCI.pm): ``ADDRESS VMID
        pid:N`` counts while the process lives, ``time:N`` until then, in seconds since 1970. Without a function
        the address means all of them."""
        for line in (self._text(_PROXMOX) or "").split("\n"):
            match = re.fullmatch(
                r"((?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}(\.[0-9a-f])?)\s(\d{1,18})\s(time|pid):(\d{1,18})",
                line,
            )
            if match is None:
                continue
            address, function, machine, kind, number = match.groups()
            if kind == "pid":
                valid = os.path.isdir(os.path.join(self._root, "proc", number))
            else:
                valid = int(number) > self._now
            if valid:
                full = address if address.count(":") == 2 else f"0000:{address}"
                pattern = re.escape(full) + ("" if function else r"\.[0-7]")
                yield pattern, Use("proxmox", f"Proxmox has reserved it for virtual machine {machine}")

    def _text(self, path: str) -> str | None:
        """The text of a regular file of at most _LIMIT bytes."""
        with self._told(path):
            try:
                fd = os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in GONE:
                    return None
                raise forbidden(error) from None
            try:
                status = os.fstat(fd)
                if stat.S_ISREG(status.st_mode) and status.st_size <= _LIMIT:
                    return os.read(fd, _LIMIT).decode(errors="replace")
            finally:
                os.close(fd)
        return None

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            if f"/{path}" not in self.unseen:
                self.unseen.append(f"/{path}")


def source_addresses(text: str) -> list[str]:
    """The PCI addresses of the host's devices that a libvirt domain has, by its status file."""
    root = _parsed(text)
    return [] if root is None else list(_sources(root))


def _parsed(text: str) -> Element | None:
    from xml.etree import ElementTree

    if "<!DOCTYPE" in text:
        return None
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def _sources(root: Element) -> Iterator[str]:
    """The PCI addresses that a domain takes from the host: ``<source><address domain= bus= slot= function=/>`` of
    hostdevs, interfaces and NVMe disks (libvirt, docs/formatdomain.rst). An ``<address>`` outside of a source is the
    guest's."""
    for source in root.iter("source"):
        for address in source.findall("address"):
            with contextlib.suppress(TypeError, ValueError):
                domain, bus, slot, function = (
                    int(address.get(name), 0)  # type: ignore[arg-type]  # None is a TypeError, as wanted
                    for name in ("domain", "bus", "slot", "function")
                )
                yield f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
