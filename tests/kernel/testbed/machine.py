"""The test machines: x86-64 with VT-d and a topology that holds every case, with AMD-Vi and virtio-iommu and a part of
it, and those of other architectures.

Each device has a role name.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.kernel.testbed import acpi
from tests.kernel.testbed.architecture import X86_64
from tests.kernel.testbed.foreign import FOREIGN
from tests.kernel.testbed.hardware import Board, Bridge, Machine, Part

KERNELS = ("6.1", "7.2")

Q35 = Board(
    X86_64,
    (
        "-nodefaults",
        *("-machine", "q35"),
        # Without erms, as the kernel clears and copies pages with "rep movsb" else, which is emulated byte by byte;
        # without smap, as every change of its flag ends what the emulator translates as one.
        *("-cpu", "max,la57=off,erms=off,smap=off"),
        # Hot-plug by the ports' and bridges' own controllers, as on real machines: with QEMU's hot-plug by ACPI the
        # kernel's shpchp does not get its bridge.
        *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
    ),
)


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


def pc(
    name: str,
    *,
    iommu: str | None = "intel-iommu,intremap=on,caching-mode=on",
    parts: tuple[Part, ...] = STANDARD_PARTS,
    kernels: tuple[str, ...] = KERNELS,
    kernel_options: tuple[str, ...] = ("intel_iommu=on",),
    tables: Mapping[str, bytes] | None = None,
) -> Machine:
    """A PC: with another IOMMU than the standard one, or none; or with less in it."""
    return Machine(
        name,
        Q35,
        (Bridge("pcie.0", "0000:00", parts),),
        kernels,
        # The IOMMU must be there before what it translates.
        first=(*([iommu] if iommu else []), "nvme-subsys,id=nvme-subsystem"),
        last=(NVME_NAMESPACE,),
        options=("-blockdev", "driver=null-co,node-name=nvme-disk,size=67108864,read-zeroes=on"),
        kernel_options=kernel_options,
        tables=tables or {},
    )


STANDARD = pc("standard")

# The firmware has reserved memory for the device ``edu``, which must stay mapped 1:1.
RMRR_BASE, RMRR_SIZE = 0x7000000, 0x10000
RMRR = pc(
    "rmrr",
    kernel_options=("intel_iommu=on", f"memmap={RMRR_SIZE:#x}${RMRR_BASE:#x}"),
    tables={acpi.OVERRIDE_PATH: acpi.dmar(2, 0, RMRR_BASE, RMRR_SIZE)},
)
NO_IOMMU = pc("no-iommu", iommu=None)
# There is an IOMMU, and nobody has told the kernel to use it.
IOMMU_OFF = pc("iommu-off", kernels=("7.2",), kernel_options=("intel_iommu=off",))
NO_INTREMAP = pc("no-intremap", iommu="intel-iommu,intremap=off,caching-mode=on")

SMALL_PARTS = tuple(part for part in STANDARD_PARTS if part.role in {"edu", "disk", "port_a", "port_nvme"})
AMD_VI = pc(
    "amd-vi",
    # QEMU before 9.2 always translates; later ones do so for emulated devices only without pt.
    iommu="amd-iommu,intremap=on,pt=off",
    parts=SMALL_PARTS,
    kernels=("6.12",),
    kernel_options=("amd_iommu=on",),
)
VIRTIO_IOMMU = pc(
    "virtio-iommu",
    iommu="virtio-iommu-pci,addr=1c.0",
    parts=SMALL_PARTS,
    # Linux 6.1 has no driver for it here, and with 7.2 there are no groups.
    kernels=("6.12",),
    kernel_options=(),
)

MACHINES = {
    machine.name: machine
    for machine in (STANDARD, RMRR, NO_IOMMU, IOMMU_OFF, NO_INTREMAP, AMD_VI, VIRTIO_IOMMU, *FOREIGN)
}
