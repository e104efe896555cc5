"""The machines of other architectures than x86-64: an edu device and a network card each, with an IOMMU."""

from __future__ import annotations

from tests.kernel.testbed.architecture import ARM64, PPC64LE, S390X
from tests.kernel.testbed.hardware import Board, Bridge, Machine, Part

KERNELS = ("6.12",)
NIC = "e1000e,romfile="


def _arm(name: str, gic: int) -> Machine:
    options = f"virt,iommu=smmuv3,gic-version={gic}"
    return Machine(
        name,
        Board(ARM64, ("-nodefaults", "-machine", options, "-cpu", "cortex-a57")),
        (Bridge("pcie.0", "0000:00", (Part("01.0", "edu", "edu"), Part("02.0", NIC, "nic_a"))),),
        KERNELS,
    )


# Interrupts are remapped by the GIC's ITS; a GICv2 has none.
SMMUV3 = _arm("smmuv3", 3)
GICV2 = _arm("gicv2", 2)

# A partition: one group per host bridge. The channels have a bridge of their own, for a virtio device makes the kernel
# do without the large window of its bridge.
PSERIES = Machine(
    "pseries",
    Board(
        PPC64LE,
        ("-nodefaults", "-machine", "pseries,x-vof=on", "-cpu", "POWER9"),
        serial="virtio-serial-pci,bus=pci.0,addr=1e.0",
        share="virtio-9p-pci,bus=pci.0,addr=1d.0",
    ),
    (
        Bridge("phb1.0", "0001:00", (Part("01.0", "edu", "edu"),), "spapr-pci-host-bridge,index=1,id=phb1"),
        Bridge("phb2.0", "0002:00", (Part("01.0", NIC, "nic_a"),), "spapr-pci-host-bridge,index=2,id=phb2"),
    ),
    KERNELS,
)

# A machine without a hypervisor: behind each host bridge a root port with room for one device.
POWERNV = Machine(
    "powernv",
    Board(
        PPC64LE,
        ("-machine", "powernv9", "-nic", "none", "-vga", "none"),
        serial="virtio-serial-pci,bus=pcie.2",
        share="virtio-9p-pci,bus=pcie.3",
    ),
    (
        Bridge("pcie.0", "0000:01", (Part("00.0", "edu", "edu"),)),
        Bridge("pcie.1", "0001:01", (Part("00.0", NIC, "nic_a"),)),
    ),
    KERNELS,
    memory=4096,
)

ZPCI = Machine(
    "zpci",
    Board(
        S390X,
        ("-nodefaults", "-machine", "s390-ccw-virtio"),
        serial="virtio-serial-ccw",
        share="virtio-9p-ccw",
    ),
    tuple(
        Bridge(
            "pci.0",
            f"{uid:04}:00",
            (Part("00.0", qemu, role),),
            f"zpci,uid={uid},fid={uid},target={role}",
            False,
        )
        for uid, qemu, role in ((2, "virtio-net-pci,romfile=", "nic_a"), (3, "virtio-rng-pci", "rng"))
    ),
    KERNELS,
)

FOREIGN = (SMMUV3, GICV2, PSERIES, POWERNV, ZPCI)
