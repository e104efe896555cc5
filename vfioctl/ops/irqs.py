"""The interrupts of an open device, on eventfds that its keeper keeps between commands (floor 4)."""

from __future__ import annotations

import errno
import os
import re
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from vfioctl.errors import KernelRefusal, NotFound, UsageError, visible
from vfioctl.host import vfio_irqs as calls
from vfioctl.host import vfio_words as words
from vfioctl.host.bounded import readable
from vfioctl.host.ioctl import CallError
from vfioctl.host.vfio_device import device_get_info
from vfioctl.ops.asking import ask
from vfioctl.ops.explained import explained
from vfioctl.ops.keeper.client import close_all
from vfioctl.policy.refusals import State
from vfioctl.uapi import vfio

if TYPE_CHECKING:
    from vfioctl.ops.device import OpenDevice

#: Of a PCI device one of these at a time (drivers/vfio/pci/vfio_pci_intrs.c: irq_is).
EXCLUSIVE = ("intx", "msi", "msix")

_KEPT = re.compile(r"([a-z0-9_]{1,16})/([0-9]{1,4})", re.ASCII)


class Irq(NamedTuple):
    """An interrupt index; ``vectors`` it has, ``enabled`` are those whose eventfds are kept."""

    number: int
    name: str
    flags: int
    vectors: int
    enabled: tuple[int, ...] = ()

    @property
    def automasked(self) -> bool:
        """Whether the kernel masks it when it fires."""
        return bool(self.flags & vfio.VFIO_IRQ_INFO_AUTOMASKED)


class Irqs:
    """The interrupts of a device. Every method raises VfioctlError; what waits in the kernel ends within ``timeout``
    seconds."""

    def __init__(self, device: OpenDevice, timeout: float) -> None:
        self.device = device
        self.timeout = timeout

    @property
    def all(self) -> tuple[Irq, ...]:
        """Every index that the device has; one without vectors is not implemented."""
        with self._kept() as kept:
            enabled = sorted(kept)
        return tuple(
            irq._replace(enabled=tuple(vector for kind, vector in enabled if kind == irq.name))
            for irq in self._known
        )

    @cached_property
    def _known(self) -> tuple[Irq, ...]:
        found = []
        with explained(State(device=self.device.name)):
            info = device_get_info(self.device.fd)
            for number in range(info.num_irqs):
                with suppress(CallError):  # ERR, of a device that is not PCI Express
                    irq = calls.device_get_irq_info(self.device.fd, number)
                    name = words.irq_name(info.flags, number)
                    found.append(Irq(number, name, irq.flags, irq.vectors))
        return tuple(found)

    def find(self, text: str, vector: int | None = None) -> Irq:
        """The index that ``text`` calls by its name or number. NotFound when the device has none, or no such vector."""
        has = ", ".join(f"{irq.name} ({irq.vectors})" for irq in self._known if irq.vectors)
        for irq in self.all:
            if text.lower() in (irq.name, str(irq.number)) and irq.vectors > (vector or 0):
                return irq
        which = visible(text) if not vector else f"{visible(text)} vector {vector}"
        raise NotFound(
            f"{self.device.name} has no interrupt {which}",
            hint=f"it has {has}" if has else None,
            subject=self.device.name,
            code="no-such-irq",
        )

    def enable(self, irq: Irq, vectors: int) -> None:
        """Lets the first ``vectors`` vectors signal an eventfd each, which the keeper keeps."""
        if irq.name == "req" and irq.enabled:
            return
        self._make_room(irq)
        with _eventfds(vectors) as eventfds:
            self._set(irq, 0, eventfds)
            for vector, eventfd in enumerate(eventfds):
                self.device.client.keep(self._name(irq, vector), eventfd)

    def disable(self, irq: Irq) -> None:
        """Takes all vectors down."""
        self._ask(lambda: calls.device_disable_irqs(self.device.fd, irq.number))
        self.device.client.drop(self._name(irq, ""))

    def mask(self, irq: Irq, vector: int = 0) -> None:
        """Lets a vector wait."""
        self._check_maskable(irq, vector)
        self._ask(lambda: calls.device_mask_irq(self.device.fd, irq.number, vector))

    def unmask(self, irq: Irq, vector: int = 0) -> None:
        """Lets a vector that was masked, by somebody or when it fired, signal again."""
        self._check_maskable(irq, vector)
        self._ask(lambda: calls.device_unmask_irq(self.device.fd, irq.number, vector))

    def test(self, irq: Irq, vector: int, patience: float) -> bool:
        """Whether the kernel's loopback of a vector arrives at its eventfd within ``patience`` seconds.

        What is enabled stays so, and a real interrupt that comes meanwhile is not lost.
        """
        if vector in irq.enabled and irq.name != "req":
            with self._kept() as kept:
                return self._loop(irq, vector, kept[irq.name, vector], patience)
        if not irq.enabled:
            self._make_room(irq)
        with _eventfds(1) as (eventfd,):
            self._set(irq, vector, [eventfd])
            try:
                return self._loop(irq, vector, eventfd, patience)
            finally:
                if irq.enabled:
                    with self._kept() as kept:
                        self._set(irq, vector, [kept.get((irq.name, vector), -1)])
                else:
                    self._ask(lambda: calls.device_disable_irqs(self.device.fd, irq.number))

    def wait(
        self, irq: Irq, vectors: Sequence[int], count: int, patience: float, unmask: bool = False
    ) -> dict[int, int]:
        """How often each of the kept ``vectors`` (none: all) has fired, when it is ``count`` times in all or
        ``patience`` seconds are over. ``unmask``: after each, what the kernel has masked.

        The host's request for the device stays to be seen by others: it is counted as 1.
        """
        seen: dict[int, int] = {}
        deadline = time.monotonic() + patience
        with self._kept() as kept:
            waited = {fd: vector for (kind, vector), fd in kept.items() if kind == irq.name}
            poll = select.poll()
            for fd, vector in waited.items():
                if not vectors or vector in vectors:
                    poll.register(fd, select.POLLIN)
            while sum(seen.values()) < count:
                left = deadline - time.monotonic()
                ready = poll.poll(max(0, left * 1000))
                for fd, _ in ready:
                    fired = 1 if irq.name == "req" else _drain(fd)
                    seen[waited[fd]] = seen.get(waited[fd], 0) + fired
                    if fired and unmask:
                        self.unmask(irq, waited[fd])
                if irq.name == "req" or not ready:
                    break
        return {vector: fired for vector, fired in sorted(seen.items()) if fired}

    def _loop(self, irq: Irq, vector: int, eventfd: int, patience: float) -> bool:
        before = _drain(eventfd)
        self._ask(lambda: calls.device_trigger_irq(self.device.fd, irq.number, vector))
        came = readable(eventfd, patience)
        rest = before + (_drain(eventfd) - 1 if came else 0)
        if vector in irq.enabled and rest:
            os.eventfd_write(eventfd, rest)
        return came

    def _check_maskable(self, irq: Irq, vector: int) -> None:
        if not irq.flags & vfio.VFIO_IRQ_INFO_MASKABLE:
            raise UsageError(
                f"{irq.name} of {self.device.name} cannot be masked",
                subject=self.device.name,
                code="not-maskable",
            )
        if vector not in irq.enabled:
            raise UsageError(
                f"{irq.name} of {self.device.name} is not enabled",
                hint=f"vfioctl irq enable {self.device.name} {irq.name}",
                subject=self.device.name,
                code="irq-disabled",
            )

    def _make_room(self, irq: Irq) -> None:
        """Of a PCI device INTx, MSI or MSI-X may be enabled, and vectors are not added to those that are."""
        for other in self.all:
            if other.enabled and other.name in EXCLUSIVE and irq.name in EXCLUSIVE:
                why = "a device uses one of INTx, MSI and MSI-X at a time"
                if other.name == irq.name:
                    why = "how many vectors it has is settled when it is enabled"
                raise UsageError(
                    f"{other.name} of {self.device.name} is enabled ({len(other.enabled)}): {why}",
                    hint=f"vfioctl irq disable {self.device.name} {other.name}",
                    subject=self.device.name,
                    code="irq-enabled",
                )

    def _set(self, irq: Irq, start: int, eventfds: Sequence[int]) -> None:
        name = self.device.name
        possible = self._ask(lambda: calls.device_set_irqs(self.device.fd, irq.number, start, list(eventfds)))
        if possible:
            raise KernelRefusal(
                f"{name} can have {possible} vectors of {irq.name} now, not {start + len(eventfds)}",
                hint="ask for fewer vectors",
                subject=name,
                code="vectors",
            )

    def _name(self, irq: Irq, vector: int | str) -> str:
        return f"irq/{self.device.name}/{irq.name}/{vector}"

    @contextmanager
    def _kept(self) -> Iterator[Mapping[tuple[str, int], int]]:
        """Copies of the eventfds that are kept for the device, by kind and vector; closed after the block."""
        prefix = f"irq/{self.device.name}/"
        found = self.device.client.kept(prefix)
        places = {name: _KEPT.fullmatch(name.removeprefix(prefix)) for name in found}
        try:
            yield {(place[1], int(place[2])): found[name] for name, place in places.items() if place}
        finally:
            close_all(found)

    def _ask(self, work: object) -> int:
        answer: int | None = ask(self.device.name, work, self.timeout)  # type: ignore[arg-type]
        return answer or 0


@contextmanager
def _eventfds(count: int) -> Iterator[list[int]]:
    """Fresh eventfds, closed after the block."""
    made: list[int] = []
    try:
        for _ in range(count):
            made.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        yield made
    finally:
        for fd in made:
            os.close(fd)


def _drain(eventfd: int) -> int:
    """What an eventfd has counted; 0 for one that is not signalled, or that another reader was faster with."""
    try:
        return os.eventfd_read(eventfd)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        return 0
