"""The whole way from a group's node to a device that answers, tried step by step (floor 4).

What cannot be tried is said to be untested, never to be right. What fails and what it is the ground of come with the
cause and the cure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vfioctl.errors import KernelRefusal, VfioctlError
from vfioctl.host.machine import Machine
from vfioctl.host.vfio_device import device_get_info
from vfioctl.model import Device, Kernel
from vfioctl.ops.backends.choice import usable
from vfioctl.ops.device import OpenDevice
from vfioctl.ops.explained import explained
from vfioctl.ops.irqs import Irqs
from vfioctl.ops.keeper import named, spawn
from vfioctl.ops.keeper.client import Client
from vfioctl.ops.regions import Regions
from vfioctl.ops.reset import reset_function
from vfioctl.ops.status import group_status
from vfioctl.policy import pci_config
from vfioctl.policy.checks import Check, Untested, Verdict
from vfioctl.policy.iova import page_sizes
from vfioctl.policy.refusals import State
from vfioctl.policy.refusals.facts import state_of
from vfioctl.policy.viability import Viability, is_vfio_bound
from vfioctl.uapi import vfio as uapi

#: Seconds within which an event that the kernel signals itself is there.
PATIENCE = 2.0


class Selftest:
    """One run for a group; ``devices`` are those to be opened."""

    def __init__(
        self, machine: Machine, verdict: Viability, kernel: Kernel, devices: Sequence[Device]
    ) -> None:
        self.machine = machine
        self.verdict = verdict
        self.group = verdict.group
        self.kernel = kernel
        self.devices = devices
        self.checks: list[Check] = []
        #: The step without which the rest cannot be tried.
        self.broken: str | None = None
        self.container: str | None = None

    def run(self, container: str | None = None) -> tuple[Check, ...]:
        """All checks in their order. ``container``: the open one to use; without it the caller's that has the group, or
        one for this run only. Raises NotFound for a container that is not there."""
        self.container = container or named.holding(self.machine, self.group.id)
        name = str(self.group.id)
        self._try("node", name, self._node, essential=True)
        self._try("permitted", name, self._permitted, essential=True)
        self._try("viable", name, self._viable, essential=True)
        with ExitStack() as stack:
            client = None
            if self.broken is None:
                if self.container is not None:
                    client = stack.enter_context(named.connected(self.machine, self.container))
                else:
                    client = stack.enter_context(spawn.temporary(self.machine, "auto"))
            self._in_container(client)
        self._try("given-back", name, self._given_back)
        return tuple(self.checks)

    def _in_container(self, client: Client | None) -> None:
        name = str(self.group.id)

        def there() -> Client:
            assert client is not None  # or a step before has failed, and this one is not tried
            return client

        self._try("container", name, lambda: self._join(there()), essential=True)
        self._try("iova-ranges", name, lambda: _ranges(there()))
        self._try("map", name, lambda: self._map(there()))
        for device in self.devices:
            if self.broken is not None:
                self._try("device", device.address, str)
                continue
            with self._opened(there(), device) as opened:
                if opened is not None:
                    self._device(opened, device)

    def _device(self, opened: OpenDevice, device: Device) -> None:
        name, timeout = device.address, self.machine.timeout
        regions = Regions(name, opened.fd, timeout)
        self._try("regions", name, lambda: _regions(regions))
        self._try("config", name, lambda: _config(regions, device))
        irqs = Irqs(opened, timeout)
        self._try("interrupts", name, lambda: _interrupts(irqs))
        self._try("reset", name, lambda: self._reset(opened, regions))
        self._try("dma", name, _dma)

    def _try(self, step: str, subject: str, work: Callable[[], str], essential: bool = False) -> None:
        verdict, detail, cure = Verdict.OK, "", None
        try:
            if self.broken is not None:
                raise Untested(f"{self.broken} failed")
            detail = work()
        except Untested as why:
            verdict, detail = Verdict.NOT_TESTED, str(why)
        except VfioctlError as error:
            verdict, detail, cure = Verdict.FAILED, error.message, error.hint
            if essential:
                self.broken = step
        self.checks.append(Check(step, subject, verdict, detail, cure))

    # --- the group -------------------------------------------------------------------------------

    def _nodes(self) -> list[str]:
        nodes = [self.group.node, *(device.cdev for device in self.devices)]
        return [node.path for node in nodes if node is not None]

    def _node(self) -> str:
        if not self._nodes():
            raise KernelRefusal(
                f"group {self.group.id} has no node under /dev/vfio: none of its devices is bound to a VFIO driver",
                hint=f"vfioctl bind --group {self.group.id}",
            )
        return ", ".join(self._nodes())

    def _permitted(self) -> str:
        may = [path for path in self._nodes() if usable(path)]
        if not may:
            raise KernelRefusal(
                f"user {os.geteuid()} may open none of {', '.join(self._nodes())}",
                hint=f"as root: vfioctl permit {self.group.id} --user {os.geteuid()}",
            )
        return ", ".join(may)

    def _viable(self) -> str:
        if self.container is not None:  # by then the kernel has said so, or (without an IOMMU) somebody has
            return f"the open container {self.container} has it"
        for member in self.verdict.members:
            if member.blocking:
                raise KernelRefusal(f"{member.device.address}: {member.detail}", hint=member.cure)
        for problem in self.verdict.problems:
            if problem.fatal:
                raise KernelRefusal(problem.detail, hint=problem.cure)
        return f"{len(self.verdict.members)} members, and none in the way"

    def _join(self, client: Client) -> str:
        if self.group.id not in client.show()["groups"]:
            client.call("add", {"groups": [self.group.id]})
        found = client.show()
        where = "" if self.container is None else f" of the open container {self.container}"
        return f"{found['backend']}{where}"

    def _map(self, client: Client) -> str:
        """A page is mapped, written, read back and unmapped."""
        sizes = page_sizes(client.show()["page_sizes"] or 0)
        size = max(os.sysconf("SC_PAGE_SIZE"), min(sizes, default=0))
        try:
            ((iova, length, *_),) = client.call("map", {"size": size}).fields["mappings"]
        except VfioctlError as error:
            if error.code == "no-iommu":
                raise Untested(error.message) from error
            raise
        pattern = os.urandom(size)
        client.write(iova, pattern)
        same = client.read(iova, size) == pattern
        unmapped = client.call("unmap", {"iova": iova}).fields["unmapped"]
        if not same or unmapped != length:
            raise KernelRefusal(
                f"{size} bytes at IOVA {iova:#x}: read back {same}, unmapped {unmapped} of {length}"
            )
        return f"{size} bytes at IOVA {iova:#x} mapped, written, read back and unmapped"

    def _given_back(self) -> str:
        if self.container is not None:
            raise Untested(f"the container {self.container} stays open")
        if self.group.node is None:
            raise Untested("the group has no node of its own to ask")
        state: State = state_of(self.verdict, self.kernel, str(os.geteuid()))
        status = group_status(self.group.id, state, self.machine.dev, self.machine.timeout)
        if status.container_set or not status.viable:
            raise KernelRefusal(
                f"group {self.group.id} is {'in a container' if status.container_set else 'not viable'} afterwards"
            )
        return "the group is viable, and in no container"

    # --- a device --------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, client: Client, device: Device) -> Iterator[OpenDevice | None]:
        """None when that has failed."""
        fds: list[int] = []

        def work() -> str:
            fds.append(client.open_device(device.address))
            with explained(State(device=device.address)):
                info = device_get_info(fds[0])
            return f"{info.num_regions} regions, {info.num_irqs} kinds of interrupts"

        self._try("device", device.address, work)
        try:
            opened = OpenDevice(device.address, fds[0], client, self.container is None) if fds else None
            yield opened
        finally:
            for fd in fds:
                os.close(fd)

    def _reset(self, opened: OpenDevice, regions: Regions) -> str:
        if self.container is not None:
            raise Untested(f"it would disturb who uses the container {self.container}")
        with explained(State(device=opened.name)):
            if not device_get_info(opened.fd).flags & uapi.VFIO_DEVICE_FLAGS_RESET:
                raise Untested("the device has no reset of its own")
        reset_function(opened, self.machine.snapshot(), self.machine.timeout)
        if any(region.name == "config" for region in regions.all):
            regions.read(regions.find("config"), 0, 4)
            return "the function was reset, and answers"
        return "the function was reset"


def testable(devices: Sequence[Device]) -> list[Device]:
    """Those that can be opened: the ones on a VFIO driver."""
    return [device for device in devices if is_vfio_bound(device)]


def _ranges(client: Client) -> str:
    ranges = client.show()["iova_ranges"]
    if not ranges:
        raise Untested("this kernel does not tell them")
    return ", ".join(f"{first:#x}-{last:#x}" for first, last in ranges)


def _regions(regions: Regions) -> str:
    found = [region.name for region in regions.all if region.info.size]
    if not found:
        raise Untested("the device has none")
    return ", ".join(found)


def _config(regions: Regions, device: Device) -> str:
    if not any(region.name == "config" and region.info.size for region in regions.all):
        raise Untested("it is no PCI device")
    config = pci_config.decode(regions.config())
    values = {register.name: value for register, value in config.registers}
    ids = f"{values.get('VENDOR_ID', 0):04x}:{values.get('DEVICE_ID', 0):04x}"
    problems = list(config.problems)
    if device.pci is not None and ids != f"{device.pci.vendor}:{device.pci.device}":
        problems.insert(0, f"it is {ids}, and sysfs says {device.pci.vendor}:{device.pci.device}")
    if problems:
        raise KernelRefusal("; ".join(problems), hint="the kernel log (dmesg) may say more")
    return f"{ids}, {len(config.capabilities)} capabilities"


def _interrupts(irqs: Irqs) -> str:
    """The loopback of every kind; what is enabled stays so."""
    tested: list[str] = []
    deaf: list[str] = []
    untested: list[str] = []
    for irq in irqs.all:
        if not irq.vectors:
            continue
        try:
            (tested if irqs.test(irq, 0, PATIENCE) else deaf).append(irq.name)
        except VfioctlError as error:
            if error.code not in ("irq-enabled", "not-supported"):
                raise
            untested.append(f"{irq.name}: {error.message}")
    if deaf:
        raise KernelRefusal(
            f"{', '.join(deaf)}: an event that was triggered did not arrive",
            hint="see dmesg; please report this",
        )
    if not tested:
        raise Untested("; ".join(untested) or "the device has none")
    return f"loopback of {', '.join(tested)}" + (f"; not tested: {'; '.join(untested)}" if untested else "")


def _dma() -> str:
    raise Untested("what the device itself reads and writes takes a driver that knows it")
