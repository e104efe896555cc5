"""How a test machine is put together, and the emulator's command line for it.

A role is found in the guest by its path of slots below a host bridge, since bus numbers are the firmware's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.testbed.architecture import Architecture


@dataclass(frozen=True)
class Board:
    """QEMU's machine and processor. ``serial`` and ``share`` are the channels to the host, as QEMU's devices."""

    architecture: Architecture
    options: tuple[str, ...]
    serial: str = "virtio-serial-pci,bus=pcie.0,addr=1e.0"
    share: str = "virtio-9p-pci,bus=pcie.0,addr=1d.0"


@dataclass(frozen=True)
class Part:
    """A device of the machine, and what is plugged in below it."""

    slot: str  # device.function on its bus, as sysfs prints it: "08.0"
    qemu: str  # QEMU's device and its properties
    role: str | None = None
    below: tuple[Part, ...] = ()
    multifunction: bool = False


@dataclass(frozen=True)
class Bridge:
    """A host bridge and what is plugged in there."""

    bus: str  # as QEMU calls its bus: "pcie.0"
    address: str  # of its bus, as sysfs prints it: "0000:00"
    parts: tuple[Part, ...]
    qemu: str | None = None  # QEMU's device and its properties; None: the board has it
    addressed: bool = True  # the slots are QEMU's, too


@dataclass(frozen=True)
class Machine:
    """A variant of the test machine. ``kernels`` are the series on which its tests run unless they name their own."""

    name: str
    board: Board
    bridges: tuple[Bridge, ...]
    kernels: tuple[str, ...]
    first: tuple[str, ...] = ()  # devices that must be there before all others
    last: tuple[str, ...] = ()  # devices that need another
    options: tuple[str, ...] = ()  # QEMU's
    kernel_options: tuple[str, ...] = ()
    memory: int = 2048  # MiB
    tables: Mapping[str, bytes] = field(default_factory=dict)  # for the start of the initial RAM file system

    def devices(self) -> list[str]:
        """The arguments of ``-device`` in their order, but for those of the channels to the guest."""
        plugged = (device for bridge in self.bridges for device in _bridge(bridge))
        return [*self.first, *plugged, *self.last]

    def roles(self) -> dict[str, list[str]]:
        """Role to its host bridge and the slots on the way from there to its device."""
        return {
            role: path for bridge in self.bridges for role, path in _roles(bridge.parts, [bridge.address])
        }


def arguments(
    machine: Machine, *, image: Path, initrd: Path, console: Path, disk: Path, share: Path
) -> list[str]:
    """QEMU's command line but for the channels to the guest (see guest.py).

    ``share`` is what the guest sees of the host, read-only.
    """
    options = [
        machine.board.architecture.kernel_options,
        "panic=-1 quiet loglevel=5",
        # Less to do: what has been translated of a program serves the next one, too, if it is at the same address.
        "mitigations=off audit=0 lsm=lockdown init_on_alloc=0 norandmaps rcupdate.rcu_expedited=1 cryptomgr.notests",
        *machine.kernel_options,
    ]
    return [
        *machine.board.options,
        *("-display", "none"),
        "-no-reboot",
        # A /dev/kvm may be there and hang, and its timing is another one: always emulate.
        *("-accel", "tcg,thread=multi,tb-size=512"),
        # Two guests run at a time: with two processors each they take three times as long on a host with two.
        *("-smp", "1"),
        *("-m", str(machine.memory)),
        *("-kernel", str(image)),
        *("-initrd", str(initrd)),
        *("-append", " ".join(options)),
        *("-serial", f"file:{console}"),
        *("-drive", f"id=disk,if=none,format=raw,snapshot=on,file={disk}"),
        *machine.options,
        *(argument for device in machine.devices() for argument in ("-device", device)),
        *("-fsdev", f"local,id=share,path={share},security_model=none,readonly=on,multidevs=remap"),
        *("-device", f"{machine.board.share},fsdev=share,mount_tag=host"),
    ]


def _bridge(bridge: Bridge) -> Iterator[str]:
    if bridge.qemu:
        yield bridge.qemu
    yield from _devices(bridge.parts, bridge.bus, bridge.addressed)


def _devices(parts: tuple[Part, ...], bus: str, addressed: bool = True) -> Iterator[str]:
    for part in parts:
        name = part.role or f"{bus}.{part.slot}"
        place = f",addr={part.slot}" if addressed else ""
        yield f"{part.qemu},id={name},bus={bus}{place}" + (",multifunction=on" if part.multifunction else "")
        yield from _devices(part.below, name)


def _roles(parts: tuple[Part, ...], above: list[str]) -> Iterator[tuple[str, list[str]]]:
    for part in parts:
        path = [*above, part.slot]
        if part.role:
            yield part.role, path
        yield from _roles(part.below, path)
