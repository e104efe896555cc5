"""Which members of a group a bind or unbind moves, and what a dynamic id would take with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vfioctl.model import Device, DynamicId, IommuGroup, PciIds, Snapshot
from vfioctl.policy.viability import Viability, is_assignable, is_vfio_bound


def members_to_bind(verdict: Viability) -> tuple[list[Device], list[Device]]:
    """(endpoints to bind, bridges to unbind) so that the group can be assigned as a whole.

    Members that the kernel tolerates with their driver (ports on pcieport, pci-stub) and bridges without one are
    left alone. A bridge that blocks (shpchp) loses its driver, for no VFIO driver takes a bridge. Objects of a DPRC
    go where it goes.
    """
    endpoints, bridges = [], []
    for member in verdict.members:
        if member.device.is_container_child:
            continue
        if member.device.is_bridge:
            if member.blocking:
                bridges.append(member.device)
        elif member.blocking or (
            member.reason in ("unbound", "vfio-driver") and is_assignable(member.device)
        ):
            endpoints.append(member.device)
    return endpoints, bridges


def members_to_release(group: IommuGroup, recorded: Iterable[str]) -> list[Device]:
    """The members that a whole-group unbind gives back: those on a VFIO driver, and those taken by vfioctl."""
    keys = set(recorded)
    return [device for device in group.devices if is_vfio_bound(device) or device.key in keys]


def dynamic_id_for(pci: PciIds, driver: str) -> DynamicId:
    """The narrowest id that matches the device: vendor, device, subsystem ids and class, so that as few others as
    possible match and ``remove_id`` cannot remove an id that somebody else has put there."""
    fields = (pci.vendor, pci.device, pci.subsystem_vendor, pci.subsystem_device, pci.class_, "ffffff")
    return DynamicId(driver, " ".join(fields))


def also_matched(snapshot: Snapshot, wanted: Iterable[Device]) -> list[Device]:
    """The other PCI devices that the dynamic ids of ``wanted`` match and the driver would take: the ones without a
    driver at once, the others when they lose theirs or are plugged again while the id is there."""
    wanted = list(wanted)
    keys = {device.key for device in wanted}
    ids = {device.pci for device in wanted}
    return [
        device
        for device in snapshot.devices
        if device.bus == "pci" and device.pci in ids and device.key not in keys and not is_vfio_bound(device)
    ]
