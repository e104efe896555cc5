"""Refusals of an open device: regions, interrupts, resets, features (floor 3, pure).

Source: drivers/vfio/vfio_main.c, drivers/vfio/pci/vfio_pci_core.c, vfio_pci_intrs.c.
"""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, NotFound, PermissionDenied
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.devices import device_locked
from vfioctl.policy.refusals.words import Table, says

_asleep = says(
    "{device} does not wake up: its power cannot be turned on, or its link is down",
    code="device-dead",
    hint="the kernel log (dmesg) says more; the slot or the machine may have to be switched off and on",
)
_no_hot_reset = says(
    "neither the slot nor the bus of {device} can be reset",
    code="no-reset",
    hint="the device is in the root complex, has another bus behind it, or the kernel knows that this reset breaks it",
)
_locked_bus = says(
    "a device of the slot or bus is locked: it is being reset or bound right now",
    code="busy",
    hint="try again",
    kind=Busy,
)
#: Every call resumes the device first.
_CALLS = (
    "VFIO_DEVICE_GET_INFO",
    "VFIO_DEVICE_GET_REGION_INFO",
    "VFIO_DEVICE_GET_IRQ_INFO",
    "VFIO_DEVICE_SET_IRQS",
    "VFIO_DEVICE_RESET",
    "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
    "VFIO_DEVICE_PCI_HOT_RESET",
    "VFIO_DEVICE_FEATURE",
)

REFUSALS: Table = {
    **{(call, errno.EIO): _asleep for call in _CALLS},
    ("VFIO_DEVICE_GET_INFO", errno.EINVAL): says(
        "{device} is not ready for use: it is not bound to an iommufd",
        code="kernel",
        hint="a device that was opened by its own node is bound first",
    ),
    ("VFIO_DEVICE_GET_REGION_INFO", errno.EINVAL): says(
        "{device} has no such region",
        code="not-found",
        hint="its regions are numbered from 0; VGA is one of a VGA device only",
        kind=NotFound,
    ),
    ("VFIO_DEVICE_GET_IRQ_INFO", errno.EINVAL): says(
        "{device} has no such kind of interrupt",
        code="not-found",
        hint="a PCI device has INTx, MSI, MSI-X, error (of PCI Express) and request",
        kind=NotFound,
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.EINVAL): says(
        "{device} does not take that for its interrupts: it has not so many vectors, another kind is in use, or they"
        " are not set up",
        code="irq-invalid",
        hint="one of INTx, MSI and MSI-X is in use at a time: take the other down first; vectors that were not set up"
        " cannot be triggered or masked",
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.ENOTTY): says(
        "{device} cannot do that to interrupts of this kind",
        code="not-supported",
        hint="masking is for INTx; an error or a request can be triggered and waited for",
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.EBADF): says(
        "the descriptor that is to tell of interrupts is not open", code="irq-invalid", hint="give an eventfd"
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.EBUSY): says(
        "the interrupt of {device} is in use: its line is shared with a device that cannot share it",
        code="irq-busy",
        hint="use MSI or MSI-X; /proc/interrupts shows who else has the line",
        kind=Busy,
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.ENOSPC): says(
        "the machine has no interrupt vectors left for {device}",
        code="irq-busy",
        hint="ask for fewer; /proc/interrupts shows who has them",
        kind=Busy,
    ),
    ("VFIO_DEVICE_SET_IRQS", errno.ENOMEM): says(
        "the kernel has no memory for the interrupts of {device}", code="no-memory", hint="free memory"
    ),
    ("VFIO_DEVICE_RESET", errno.EINVAL): says(
        "{device} has no way to be reset by itself",
        code="no-reset",
        hint="a reset of its slot or bus may be possible, with every device that shares it",
    ),
    ("VFIO_DEVICE_RESET", errno.ENOTTY): says(
        "{device} has no method left to be reset by",
        code="no-reset",
        hint="look at its reset_method in sysfs: writing 'default' there brings the methods back",
        look=evidence.RESET_METHOD,
    ),
    ("VFIO_DEVICE_RESET", errno.EAGAIN): device_locked,
    ("VFIO_DEVICE_RESET", errno.EBUSY): device_locked,
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", errno.ENODEV): _no_hot_reset,
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", errno.ENOTTY): _no_hot_reset,
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", errno.EAGAIN): says(
        "devices came or went on the bus of {device} meanwhile", code="busy", hint="try again", kind=Busy
    ),
    ("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", errno.EPERM): says(
        "a device of the same slot or bus is in no IOMMU group",
        code="reset-scope",
        hint="the IOMMU does not cover it, so nobody can be given it; reset {DEVICE} by itself",
        kind=PermissionDenied,
    ),
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.EINVAL): says(
        "a reset of the slot or bus of {device} would reach a device that is not held: it is in a group that is not"
        " open here, or not bound to a VFIO driver",
        code="reset-scope",
        hint="bind every device of the slot or bus to a VFIO driver, and hold all of their groups",
    ),
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.EBADF): says(
        "a group that was to show that the devices are held is not open",
        code="reset-scope",
        hint="keep the groups of all devices of the slot or bus open",
    ),
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.ENODEV): _no_hot_reset,
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.ENOTTY): _no_hot_reset,
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.EAGAIN): _locked_bus,
    ("VFIO_DEVICE_PCI_HOT_RESET", errno.EBUSY): _locked_bus,
    ("VFIO_DEVICE_FEATURE", errno.ENOTTY): says(
        "{device} does not have the feature: neither the kernel's VFIO nor the device's driver knows it",
        code="not-supported",
        hint="migration takes a variant driver, other features a newer kernel",
    ),
    ("VFIO_DEVICE_FEATURE", errno.EINVAL): says(
        "{device} does not take that of the feature: it has no such operation, or the device is in no state for it",
        code="feature-invalid",
        hint="a device sleeps once; a migration goes from state to state",
    ),
}
