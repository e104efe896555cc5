"""The guards of a change: what must not be taken from the host unless it is allowed by name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from vfioctl.errors import GuardRefusal, UsageError
from vfioctl.model import VFIO_DRIVERS, Device, KernelChoice, Use
from vfioctl.policy.viability import is_vfio_bound


class Kind(Enum):
    """What a guard protects: a USE by the host, the CLAIM of another tool, or who asks from the REQUEST itself. NEVER
    is passed, an OPTION by the option that its description names; a WARNING stops nothing."""

    USE = "use"
    CLAIM = "claim"
    REQUEST = "request"
    NEVER = "never"
    OPTION = "option"
    WARNING = "warning"


class Guard(NamedTuple):
    """``description`` says for the manual what the guard stands for, ``cure`` how to do without passing it."""

    kind: Kind
    description: str
    cure: str | None = None


#: All guards, the gravest first: of several the first is the code of the refusal.
GUARDS: Mapping[str, Guard] = {
    "bridge": Guard(
        Kind.NEVER,
        "No VFIO driver takes a bridge, and the devices behind it need it. Bind those, or take the bridge's driver "
        "away with unbind --leave-unbound.",
    ),
    "virtual-functions-assigned": Guard(
        Kind.NEVER,
        "Virtual functions of the device are bound to a VFIO driver: whoever uses them would lose them. Unbind them "
        "first.",
        "vfioctl unbind its virtual functions",
    ),
    "root-disk": Guard(
        Kind.USE,
        "The device carries the root file system: itself, through a partition, or below dm-crypt, LVM, multipath, md, "
        "bcache, a loop, a file system of several disks or a ZFS pool.",
    ),
    "mounted-disk": Guard(
        Kind.USE, "The device carries another file system that is mounted, in the same ways.", "umount"
    ),
    "swap": Guard(Kind.USE, "The device carries swap space that is in use.", "swapoff"),
    "disk-in-use": Guard(
        Kind.USE,
        "Something else is active on a disk of the device: a logical volume, an array, a pool that is imported, or "
        "whatever the kernel has claimed the disk for.",
        "deactivate what is built on the disk",
    ),
    "held": Guard(
        Kind.USE,
        "A process has a node of the device open or mapped (graphics, a disk opened raw, input, sound, USB, ...): the "
        "host driver waits for it, or it loses its work. For systemd-logind and udev this is a warning only.",
        "end the processes, or stop their services",
    ),
    "ssh-session": Guard(
        Kind.USE,
        "The SSH connection that vfioctl was called through comes through the device.",
        "log in another way",
    ),
    "default-route": Guard(
        Kind.USE,
        "The host's default route leaves through the device, or through a bond or bridge that it belongs to.",
        "another route",
    ),
    "address": Guard(
        Kind.USE,
        "A network interface of the device, or one stacked on it, is up and has an address. An IPv6 address that is "
        "the link's own does not count.",
        "ip link set ... down",
    ),
    "network-master": Guard(
        Kind.USE,
        "A network interface of the device belongs to a bond, a bridge, a team or Open vSwitch, or carries a VLAN or "
        "the like.",
        "ip link set ... nomaster",
    ),
    "network-namespace": Guard(
        Kind.USE, "A network interface of the device has been moved to another network namespace: a container has it."
    ),
    "boot-vga": Guard(Kind.USE, "The device is the display that the firmware chose."),
    "console": Guard(Kind.USE, "The host's text console is on a frame buffer of the device."),
    "firmware-framebuffer": Guard(
        Kind.USE,
        "A part of the device's memory is the frame buffer that the firmware has set up, and a driver of the host "
        "(simpledrm, efifb, vesafb) may be showing something in it.",
    ),
    "last-keyboard": Guard(
        Kind.USE, "No keyboard would be left on the host, though there is one now.", "plug in another keyboard"
    ),
    "vmd": Guard(
        Kind.USE, "The device opens a PCI domain of its own (Intel VMD), and all that is in it goes with it."
    ),
    "virtual-functions": Guard(
        Kind.USE,
        "The device has SR-IOV virtual functions enabled, and VFIO takes no such device. When it is allowed they are "
        "taken away first, and unbind brings as many back.",
        "echo 0 > /sys/bus/pci/devices/.../sriov_numvfs",
    ),
    "mediated-devices": Guard(
        Kind.USE,
        "The device's driver has made mediated devices of it, and they go when it goes.",
        "echo 1 > /sys/bus/mdev/devices/.../remove",
    ),
    "libvirt": Guard(
        Kind.CLAIM, "A running libvirt domain has the device.", "virsh detach-device, or end the domain"
    ),
    "proxmox": Guard(Kind.CLAIM, "Proxmox has reserved the device for a virtual machine.", "end the machine"),
    "driverctl": Guard(
        Kind.CLAIM,
        "driverctl is told to give the device to another driver at every boot. A change between VFIO drivers is none "
        "of its business.",
        "driverctl unset-override",
    ),
    "new-id-match": Guard(
        Kind.REQUEST,
        "With --method new-id: other devices have the same ids, and the driver would take them too.",
    ),
    "not-a-vfio-driver": Guard(
        Kind.REQUEST, "With --driver: the driver is not known to be a VFIO driver."
    ),
    "unfinished-change": Guard(
        Kind.NEVER, "An earlier change was interrupted. Run vfioctl recover first.", "vfioctl recover"
    ),
    "lent": Guard(
        Kind.NEVER,
        "A vfioctl run has lent the device, or its group, to its command, which still runs. It is given back when that "
        "command ends.",
    ),
    "journal-unreadable": Guard(
        Kind.NEVER,
        "The record of an earlier change cannot be understood, so nothing can be put back from it. Look at it, put its "
        "devices right by hand, and remove it.",
    ),
    "reset-scope": Guard(
        Kind.NEVER,
        "With reset --hot: the slot or bus has devices that the container does not hold, or that no VFIO driver has.",
    ),
    "noiommu": Guard(
        Kind.OPTION,
        "The group is in no-IOMMU mode: nothing keeps its devices from any of the host's memory, and nothing can be "
        "mapped for them. --backend noiommu opens it all the same.",
    ),
    "has-data": Guard(
        Kind.WARNING, "A disk of the device has partitions, or something that udev knows; nothing uses it now."
    ),
    "siblings": Guard(
        Kind.WARNING,
        "Other members of the group have host drivers and stay: the group is not viable until they are taken too.",
    ),
    "unseen": Guard(Kind.WARNING, "The caller may not read something that could have told more."),
}  # fmt: skip

#: Uses of a device by the host, and claims of other tools.
IN_USE_GUARDS = tuple(name for name, guard in GUARDS.items() if guard.kind in (Kind.USE, Kind.CLAIM))
#: What --allow takes. Other guards (a bridge, an unfinished change) protect what cannot work and are never passed.
ALLOWABLE_GUARDS = (*IN_USE_GUARDS, *(name for name, guard in GUARDS.items() if guard.kind is Kind.REQUEST))


def concerning(
    device: Device,
    goal: str | KernelChoice | None,
    uses: Sequence[Use],
    is_vfio: Callable[[str], bool] = VFIO_DRIVERS.__contains__,
) -> tuple[Use, ...]:
    """Those of the ``uses`` that end, and the claims that are passed over, when the device goes to the driver
    ``goal``; in the order of GUARDS.

    A device on a VFIO driver or pci-stub has left the host already. One without a driver leaves it when it gets a VFIO
    driver: the firmware's display needs none.
    """
    if device.driver == goal:
        return ()
    if device.driver is None:
        leaves = isinstance(goal, str) and is_vfio(goal)
    else:
        leaves = device.driver != "pci-stub" and not is_vfio_bound(device)
    found = [
        use
        for use in uses
        if (_is_passed_over(use, goal, is_vfio) if GUARDS[use.guard].kind is Kind.CLAIM else leaves)
    ]
    ranks = list(GUARDS)
    return tuple(sorted(found, key=lambda use: ranks.index(use.guard)))


def refuse_in_use(uses: Mapping[str, Sequence[Use]], allow: Collection[str]) -> None:
    """Raises GuardRefusal when the host uses one of the devices (by name) in a way that is not allowed. It names every
    such guard with its evidence, and in ``details["guards"]`` as records; warnings stop nothing."""
    found = [
        (name, use) for name, of_it in uses.items() for use in of_it if use.refuses and use.guard not in allow
    ]
    if not found:
        return
    guards = [guard for guard in GUARDS if any(use.guard == guard for _, use in found)]
    lines = [f"{name}: {use.evidence}" for name, use in found]
    first = next(name for name, use in found if use.guard == guards[0])
    raise GuardRefusal(
        f"guard{'s' if guards[1:] else ''} {', '.join(guards)}:"
        + "\n".join(["", *lines] if lines[1:] else [f" {lines[0]}"]),
        hint=_way_out(guards),
        subject=first,
        code=guards[0],
        details={
            "guards": [{"guard": use.guard, "subject": name, "evidence": use.evidence} for name, use in found]
        },
    )


def refuse_without_iommu(groups: Sequence[int], of: int, backend: str) -> None:
    """Raises GuardRefusal when ``groups``, some ``of`` those of a container, are in no-IOMMU mode and ``backend`` is
    not the one for that, and UsageError when it is and others are not."""
    if backend == "noiommu":
        if len(groups) < of:
            raise UsageError(
                "the backend noiommu is for groups without an IOMMU, and not all of these are",
                hint="leave --backend away, and use a container of its own for each kind",
                code="groups-invalid",
            )
    elif groups:
        names = ", ".join(map(str, groups))
        raise GuardRefusal(
            f"guard noiommu: group {names} has no IOMMU: its devices reach all of the host's memory",
            hint="to open it all the same, in a container of its own: "
            f"vfioctl container open NAME {names.replace(',', '')} --backend noiommu",
            subject=str(groups[0]),
            code="noiommu",
            details={
                "guards": [
                    {"guard": "noiommu", "subject": str(group), "evidence": f"/dev/vfio/noiommu-{group}"}
                    for group in groups
                ]
            },
        )


def _is_passed_over(use: Use, goal: str | KernelChoice | None, is_vfio: Callable[[str], bool]) -> bool:
    """Whether a claim is against the goal. One for a driver: VFIO drivers are as good as one another, and what the
    kernel chooses is a host driver."""
    if use.driver is None:
        return True
    if is_vfio(use.driver):
        return not (isinstance(goal, str) and is_vfio(goal))
    return goal is None or (isinstance(goal, str) and goal != use.driver)


def _way_out(guards: Sequence[str]) -> str:
    cures = [cure for name in guards if (cure := GUARDS[name].cure)]
    first = "take it out of use first" + (f" ({'; '.join(cures)})" if cures else "")
    never = [name for name in guards if name not in ALLOWABLE_GUARDS]
    if never:
        return f"{first}\nthere is no --allow for {', '.join(never)}"
    words = " ".join(f"--allow {name}" for name in guards)
    return f"{first}\nor, to take it away from the host all the same: {words}"
