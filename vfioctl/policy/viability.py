"""Group viability by the kernel's own rule, and the refusals that the kernel makes later.

Linux 5.19 and newer (drivers/iommu/iommu.c, iommu_device_use_default_domain): a group is viable when no member
has a driver that claims DMA for the kernel. A driver claims unless it sets ``driver_managed_dma``; the buses
that make the claim are those in CLAIMING_BUSES. Linux 5.18 and older (drivers/vfio/vfio.c, vfio_dev_viable):
every member has no driver, a VFIO driver, pci-stub, or is a PCI device whose header type is not 0.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vfioctl.model import VFIO_DRIVERS, Device, IommuGroup, Kernel, shown

#: Others with ``driver_managed_dma`` set.
DMA_MANAGING_DRIVERS = frozenset({"pcieport", "pci-stub", "fsl-pci"})
#: Buses whose ``dma_configure`` claims the group's DMA for a driver.
CLAIMING_BUSES = frozenset({"pci", "platform", "amba", "fsl-mc", "cdx"})


class Member(NamedTuple):
    """The verdict on one device; ``reason`` is stable, ``detail`` is for people."""

    device: Device
    blocking: bool
    reason: str
    detail: str
    cure: str | None = None


class Problem(NamedTuple):
    """Something that makes a viable group unusable, or usable only with a warning."""

    code: str
    detail: str
    cure: str | None = None
    fatal: bool = True


class Viability(NamedTuple):
    """``viable``: the kernel's word on DMA ownership. ``usable``: a user could really open the group now."""

    group: IommuGroup
    viable: bool
    usable: bool
    members: tuple[Member, ...]
    problems: tuple[Problem, ...]


def release_at_least(release: str | None, major: int, minor: int) -> bool:
    """Whether a kernel release string is ``major.minor`` or newer; an unknown one counts as newer."""
    match = re.match(r"(\d+)\.(\d+)", release or "")
    return match is None or (int(match[1]), int(match[2])) >= (major, minor)


def is_vfio_bound(device: Device) -> bool:
    """Bound to a driver that offers it through VFIO (``vfio-dev`` appears with Linux 6.1, of any driver; the drivers of
    mediated devices are all of VFIO)."""
    return device.driver is not None and (
        device.vfio_dev is not None or device.driver in VFIO_DRIVERS or device.bus == "mdev"
    )


def is_assignable(device: Device) -> bool:
    """Whether anybody would assign the device: not a bridge of any kind (PCI base class 06)."""
    return not device.is_bridge and not (device.pci is not None and device.pci.class_.startswith("06"))


def is_being_unbound(device: Device, group: IommuGroup) -> bool:
    """Whether the kernel is in the VFIO driver's remove(), waiting for the device's user: the driver link is gone by
    then, but ``vfio-dev`` (up to Linux 6.12 or so) or at least the group's node is still there."""
    lingering = group.node is not None and not any(map(is_vfio_bound, group.devices))
    return device.driver is None and (device.vfio_dev is not None or lingering)


def uses_dma_ownership(group: IommuGroup, kernel: Kernel) -> bool:
    """Which of the two rules this kernel has. Features first, for distributions port them back."""
    return (
        kernel.has_iommufd
        or kernel.has_vfio_dev
        or any(device.vfio_dev for device in group.devices)
        or release_at_least(kernel.release, 5, 19)
    )


def judge(group: IommuGroup, kernel: Kernel) -> Viability:
    """The verdict on a group from sysfs alone. See :func:`problems_of` for what comes after viability."""
    modern = uses_dma_ownership(group, kernel)
    members = tuple(
        _waiting(device) if is_being_unbound(device, group) else judge_member(device, modern)
        for device in group.devices
    )
    viable = not any(member.blocking for member in members)
    problems = problems_of(group, kernel)
    usable = viable and not any(problem.fatal for problem in problems)
    return Viability(group, viable, usable, members, problems)


def judge_member(device: Device, modern: bool) -> Member:
    """The verdict on one member by the 5.19 rule (``modern``) or by the older one."""
    driver = device.driver
    if driver is None:
        return Member(device, False, "unbound", "no driver: tolerated")
    if is_vfio_bound(device):
        return Member(device, False, "vfio-driver", f"bound to the VFIO driver {driver}")
    if driver == "pci-stub":
        return Member(device, False, "stub-driver", "pci-stub does no DMA: tolerated")
    if modern:
        if driver in DMA_MANAGING_DRIVERS:
            return Member(device, False, "driver-managed-dma", f"{driver} leaves DMA to its owner: tolerated")
        if device.bus not in CLAIMING_BUSES:
            return Member(device, False, "bus-without-claim", f"drivers on bus {device.bus} claim no DMA")
    elif device.is_bridge:
        return Member(device, False, "bridge", "a bridge: tolerated whatever its driver")
    return Member(device, True, "host-driver", f"the host driver {driver} owns its DMA", cure_for(device))


def _waiting(device: Device) -> Member:
    return Member(
        device,
        False,
        "being-unbound",
        "the kernel waits for the device's user before it takes its VFIO driver away",
    )


def cure_for(device: Device) -> str:
    """The command that takes a blocking member out of the way."""
    if device.is_bridge:
        return f"vfioctl unbind --leave-unbound {shown(device.key)}"
    whole = "--group " if device.is_container_child else ""
    return f"vfioctl bind {whole}{shown(device.key)}"


def problems_of(group: IommuGroup, kernel: Kernel) -> tuple[Problem, ...]:
    """Refusals that VFIO_GROUP_GET_STATUS does not show, in the order in which a user would meet them."""
    found = []
    if not any(is_vfio_bound(device) for device in group.devices):
        cure = f"vfioctl bind {group.id}" if any(map(is_assignable, group.devices)) else None
        found.append(
            Problem("no-vfio-member", "no member is bound to a VFIO driver, so the group has no node", cure)
        )
    if direct := direct_region(group, kernel):
        found.append(direct)
    if group.is_noiommu:
        found.append(
            Problem("noiommu", "no-IOMMU mode: the device can reach all memory, and CAP_SYS_RAWIO is needed")
        )
    elif any(device.bus != "mdev" for device in group.devices) and (
        interrupts := interrupts_not_isolated(kernel)
    ):
        found.append(interrupts)
    return tuple(found)


def direct_region(group: IommuGroup, kernel: Kernel) -> Problem | None:
    """The refusal of a group in which firmware wants memory mapped 1:1, on kernels that refuse for that."""
    direct = [region for region in group.reserved_regions if region.type == "direct"]
    intel = any(unit.startswith("dmar") for unit in kernel.iommu_units)
    if not direct or not (intel or release_at_least(kernel.release, 6, 6)):
        return None
    where = ", ".join(f"{region.start:#x}-{region.end:#x}" for region in direct)
    return Problem(
        "direct-region",
        f"firmware requires a 1:1 mapping of {where} for a member, and the kernel then refuses assignment",
        "a firmware setting (pre-boot DMA protection, USB legacy, remote management), or another device",
    )


def interrupts_not_isolated(kernel: Kernel) -> Problem | None:
    """The refusal where no interrupt is remapped; a warning when the risk is accepted."""
    if kernel.interrupts_isolated is not False:
        return None
    allowed = kernel.unsafe_interrupts_allowed
    return Problem(
        "interrupts-not-isolated",
        "no interrupt remapping: a device could raise any interrupt of the host"
        + (", and allow_unsafe_interrupts lets it" if allowed else ""),
        None
        if allowed
        else "turn interrupt remapping on in firmware and kernel (intremap=on), or accept the risk: "
        "echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
        fatal=not allowed,
    )
