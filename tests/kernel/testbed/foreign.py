"""The machines of other architectures than x86-64: an edu device and a network card each, with an IOMMU."""

from __future__ import annotations

from tests.kernel.testbed.architecture import ARM64
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

FOREIGN = (SMMUV3, GICV2)
