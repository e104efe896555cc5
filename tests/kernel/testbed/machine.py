"""The emulated hardware: VT-d and a topology that holds every case, each device with a role name.

A role is found in the guest by its path of slots below the host bridge, since bus numbers are the firmware's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.testbed import acpi


@dataclass(frozen=True)
class Part:
    """A device of the machine, and what is plugged in below it."""

    slot: str  # device.function on its bus, as sysfs prints it: "08.0"
    qemu: str  # QEMU's device and its properties
    role: str | None = None
    below: tuple[Part, ...] = ()
    multifunction: bool = False


@dataclass(frozen=True)
class Machine:
    """A variant of the test machine."""

    name: str
    parts: tuple[Part, ...]
    iommu: str | None = "intel-iommu,intremap=on,caching-mode=on"
    kernel_options: tuple[str, ...] = ("intel_iommu=on",)
    memory: int = 2048  # MiB
    tables: Mapping[str, bytes] = field(default_factory=dict)  # for the start of the initial RAM file system

    def devices(self) -> list[str]:
        """The arguments of ``-device`` in their order, but for those of the channels to the guest."""
        # The IOMMU must be there before what it translates.
        iommu = [self.iommu] if self.iommu else []
        return [*iommu, "nvme-subsys,id=nvme-subsystem", *_devices(self.parts, "pcie.0"), NVME_NAMESPACE]

    def roles(self) -> dict[str, list[str]]:
        """Role to the slots on the way from the root bus to its device."""
        return dict(_roles(self.parts, []))


def root_port(slot: str, *below: Part, role: str | None = None) -> Part:
    """A PCI Express root port on the root bus; its number in the chassis is its slot's."""
    number = int(slot.split(".")[0], 16)
    return Part(slot, f"pcie-root-port,chassis={number},slot={number}", role, below)


NIC = "e1000e,romfile="
EDU = "edu"
NVME = (
    "nvme,serial=testbed,subsys=nvme-subsystem,sriov_max_vfs=4,max_ioqpairs=18,msix_qsize=19,"
    "sriov_vq_flexible=8,sriov_vi_flexible=4"
)

NVME_NAMESPACE = "nvme-ns,drive=nvme-disk,bus=nvme,nsid=1"

STANDARD_PARTS = (
    Part("01.0", "VGA,romfile=", "vga"),
    Part("02.0", EDU, "edu"),
    Part("03.0", "virtio-blk-pci,drive=disk", "disk"),
    # Two cards of one model in groups of their own: new_id takes both.
    root_port("08.0", Part("00.0", NIC, "nic_a"), role="port_a"),
    root_port("09.0", Part("00.0", NIC, "nic_b"), role="port_b"),
    # Conventional PCI: one group for all that is behind the bridge, and the bridge.
    root_port(
        "0a.0",
        Part(
            "00.0",
            "pcie-pci-bridge",
            "conv_bridge",
            (
                Part("01.0", EDU, "conv_edu0", multifunction=True),
                Part("01.1", EDU, "conv_edu1"),
                Part("02.0", "e1000,romfile=", "conv_nic"),
            ),
        ),
        role="port_conv",
    ),
    # The same without a hot-plug controller in the bridge: no host driver takes it.
    Part(
        "04.0",
        "pci-bridge,chassis_nr=64,shpc=off",
        "plain_bridge",
        (Part("01.0", EDU, "plain_edu"), Part("02.0", "e1000,romfile=", "plain_nic")),
    ),
    # Two functions without ACS between them: one group, no bridge in it.
    root_port(
        "0b.0",
        Part("00.0", EDU, "mf0", multifunction=True),
        Part("00.1", "e1000-82545em,romfile=", "mf1"),
        role="port_mf",
    ),
    root_port(
        "0c.0",
        Part(
            "00.0",
            "x3130-upstream",
            "switch_up",
            (
                Part(
                    "00.0",
                    "xio3130-downstream,chassis=32,slot=0",
                    "switch_down0",
                    (Part("00.0", "qemu-xhci", "xhci"),),
                ),
                Part("01.0", "xio3130-downstream,chassis=32,slot=1", "switch_down1"),
            ),
        ),
        role="port_switch",
    ),
    root_port("0d.0", Part("00.0", NVME, "nvme"), role="port_nvme"),
    root_port("0e.0", role="hotplug_port"),
)

STANDARD = Machine("standard", STANDARD_PARTS)

# The firmware has reserved memory for the device ``edu``, which must stay mapped 1:1.
RMRR_BASE, RMRR_SIZE = 0x7000000, 0x10000
RMRR = Machine(
    "rmrr",
    STANDARD_PARTS,
    kernel_options=("intel_iommu=on", f"memmap={RMRR_SIZE:#x}${RMRR_BASE:#x}"),
    tables={acpi.OVERRIDE_PATH: acpi.dmar(2, 0, RMRR_BASE, RMRR_SIZE)},
)
NO_IOMMU = Machine("no-iommu", STANDARD_PARTS, iommu=None)
NO_INTREMAP = Machine("no-intremap", STANDARD_PARTS, iommu="intel-iommu,intremap=off,caching-mode=on")

MACHINES = {machine.name: machine for machine in (STANDARD, RMRR, NO_IOMMU, NO_INTREMAP)}


def arguments(
    machine: Machine, *, image: Path, initrd: Path, console: Path, disk: Path, share: Path
) -> list[str]:
    """QEMU's command line but for the channels to the guest (see guest.py).

    ``share`` is what the guest sees, read-only, as its root file system.
    """
    options = [
        "console=ttyS0 panic=-1 mitigations=off nokaslr audit=0 no_timer_check tsc=reliable random.trust_cpu=on",
        "cryptomgr.notests quiet loglevel=5",
        *machine.kernel_options,
    ]
    return [
        "-nodefaults",
        *("-display", "none"),
        "-no-reboot",
        *("-machine", "q35"),
        # A /dev/kvm may be there and hang, and its timing is another one: always emulate.
        *("-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", "max,la57=off"),
        # Two guests run at a time: with two processors each they take three times as long on a host with two.
        *("-smp", "1"),
        # Hot-plug by the ports' and bridges' own controllers, as on real machines: with QEMU's hot-plug by ACPI the
        # kernel's shpchp does not get its bridge.
        *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
        *("-m", str(machine.memory)),
        *("-kernel", str(image)),
        *("-initrd", str(initrd)),
        *("-append", " ".join(options)),
        *("-serial", f"file:{console}"),
        *("-drive", f"id=disk,if=none,format=raw,snapshot=on,file={disk}"),
        *("-blockdev", "driver=null-co,node-name=nvme-disk,size=67108864,read-zeroes=on"),
        *(argument for device in machine.devices() for argument in ("-device", device)),
        *("-fsdev", f"local,id=share,path={share},security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=share,mount_tag=host,addr=1d.0"),
    ]


def _devices(parts: tuple[Part, ...], bus: str) -> Iterator[str]:
    for part in parts:
        name = part.role or f"{bus}.{part.slot}"
        yield f"{part.qemu},id={name},bus={bus},addr={part.slot}" + (
            ",multifunction=on" if part.multifunction else ""
        )
        yield from _devices(part.below, name)


def _roles(parts: tuple[Part, ...], above: list[str]) -> Iterator[tuple[str, list[str]]]:
    for part in parts:
        path = [*above, part.slot]
        if part.role:
            yield part.role, path
        yield from _roles(part.below, path)
