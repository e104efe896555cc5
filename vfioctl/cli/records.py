"""The public shapes (schema_version 1): what json and yaml show, and what columns are taken from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vfioctl.model import Device, IommuGroup, Node, ReservedRegion, shown
from vfioctl.policy.viability import Member, Problem, Viability

if TYPE_CHECKING:
    from vfioctl.host.holders import Holder
    from vfioctl.ops.irqs import Irq
    from vfioctl.ops.regions import Region
    from vfioctl.ops.watching import Happened
    from vfioctl.policy.doctor.findings import Check, Finding
    from vfioctl.policy.events import Value
    from vfioctl.policy.impact import Impact
    from vfioctl.policy.topology.explain import Explanation
    from vfioctl.policy.topology.grouping import Reason

SCHEMA_VERSION = 1
_NO_IDS = (None,) * 5


def document(key: str, value: Any) -> dict[str, Any]:
    """A document with its schema version in front."""
    return {"schema_version": SCHEMA_VERSION, key: value}


def node(value: Node | None) -> dict[str, Any] | None:
    """A device node: path, uid, gid, mode as four octal digits."""
    if value is None:
        return None
    return {"path": value.path, "uid": value.uid, "gid": value.gid, "mode": f"{value.mode:04o}"}


def region(value: ReservedRegion) -> dict[str, Any]:
    """A reserved region: start and end (inclusive) as numbers."""
    return {"start": value.start, "end": value.end, "type": value.type}


def member_device(device: Device) -> dict[str, Any]:
    """A device inside its group."""
    class_, vendor, device_id, subsystem_vendor, subsystem_device = device.pci or _NO_IDS
    return {
        "address": device.address,
        "bus": device.bus,
        "class": class_,
        "vendor": vendor,
        "device": device_id,
        "subsystem_vendor": subsystem_vendor,
        "subsystem_device": subsystem_device,
        "driver": device.driver,
        "driver_override": device.driver_override,
        "vfio_dev": device.vfio_dev,
        "cdev": node(device.cdev),
    }


def device(value: Device, verdict: Viability | None) -> dict[str, Any]:
    """A device with its group's number, node and verdict; null without a group."""
    return {
        **member_device(value),
        "group": value.group,
        "viable": verdict and verdict.viable,
        "usable": verdict and verdict.usable,
        "node": verdict and node(verdict.group.node),
    }


def group(value: IommuGroup, verdict: Viability) -> dict[str, Any]:
    """A group with its members."""
    return {
        "id": value.id,
        "name": value.name,
        "type": value.type,
        "viable": verdict.viable,
        "usable": verdict.usable,
        "node": node(value.node),
        "reserved_regions": [region(r) for r in value.reserved_regions],
        "devices": [member_device(d) for d in value.devices],
    }


def holder(value: Holder, group: int | None) -> dict[str, Any]:
    """A process that holds a node of a device."""
    return {
        "address": value.address,
        "bus": value.bus,
        "group": group,
        "node": value.node,
        "kind": value.kind,
        "pid": value.pid,
        "command": value.command,
        "uid": value.uid,
        "user": value.user,
        "unit": value.unit,
        "container": value.container,
        "certain": value.certain,
        "what": value.what,
    }


def member(value: Member) -> dict[str, Any]:
    """The verdict on one member."""
    return {
        "address": value.device.address,
        "bus": value.device.bus,
        "driver": value.device.driver,
        "verdict": "blocking" if value.blocking else "ok",
        "reason": value.reason,
        "detail": value.detail,
        "cure": value.cure,
    }


def problem(value: Problem) -> dict[str, Any]:
    """A refusal that comes after viability."""
    return {"code": value.code, "detail": value.detail, "cure": value.cure}


def subject(value: IommuGroup | Device) -> str:
    """How a record calls what was asked for: a group's number or a device's address."""
    return str(value.id) if isinstance(value, IommuGroup) else value.address


def impact(asked: str, value: Impact) -> dict[str, Any]:
    """What the host would lose with a device; ``asked``: the subject that it belongs to."""
    from vfioctl.policy.guards import ALLOWABLE_GUARDS

    return {
        "subject": asked,
        "address": value.device.address,
        "bus": value.device.bus,
        "group": value.device.group,
        "driver": value.device.driver,
        "impacts": [
            {
                "guard": use.guard,
                "level": "refuse" if use.refuses else "warn",
                "evidence": use.evidence,
                "allowable": use.guard in ALLOWABLE_GUARDS,
            }
            for use in value.uses
        ],
        "siblings": [sibling.address for sibling in value.siblings],
    }


def explanation(asked: str, value: Explanation) -> dict[str, Any]:
    """Why the devices of a group are in one; ``asked``: the subject."""
    return {
        "subject": asked,
        "group": value.group,
        "rule": value.rule,
        "devices": list(value.devices),
        "reasons": [_reason(reason) for reason in value.reasons],
        "isolation": {"real": value.real, "caveats": [note._asdict() for note in value.caveats]},
        "remedies": [note._asdict() for note in value.remedies],
        "agrees": value.agrees,
    }


def _reason(value: Reason) -> dict[str, Any]:
    """``evidence``: the registers of the bridge or function that decides; null where no ACS is looked at."""
    from vfioctl.policy.topology.isolation import bit_names

    acs = value.verdict and value.verdict.acs
    return {
        "address": value.address,
        "code": value.code,
        "bridge": value.bridge,
        "detail": value.detail,
        "evidence": value.verdict
        and {
            "acs_capability": acs and acs.capability,
            "acs_control": acs and acs.control,
            "acs_missing": bit_names(value.verdict.missing),
        },
    }


def device_region(value: Region) -> dict[str, Any]:
    """A region of an open device; sizes in bytes."""
    from vfioctl.host.vfio_words import REGION_FLAGS, flags

    info = value.info
    return {
        "index": value.number,
        "name": value.name,
        "size": info.size,
        "flags": flags(info.flags, REGION_FLAGS),
        "space": value.space,
        "areas": info.areas and [{"offset": offset, "size": size} for offset, size in info.areas],
        "type": info.type and info.type[0],
        "subtype": info.type and info.type[1],
        "msix_mappable": info.msix_mappable,
    }


def irq(value: Irq) -> dict[str, Any]:
    """An interrupt of an open device; ``enabled``: the vectors whose eventfds its container keeps."""
    from vfioctl.host.vfio_words import IRQ_FLAGS, flags

    return {
        "index": value.number,
        "name": value.name,
        "vectors": value.vectors,
        "flags": flags(value.flags, IRQ_FLAGS),
        "enabled": list(value.enabled),
    }


def finding(value: Finding) -> dict[str, Any]:
    """What a doctor has found."""
    return {
        "code": value.code,
        "severity": value.severity.value,
        "subject": value.subject,
        "detail": value.detail,
        "evidence": [{"file": evidence.file, "value": evidence.value} for evidence in value.evidence],
        "cure": value.cure,
    }


def silent_check(value: Check) -> dict[str, Any]:
    """A check that has found nothing, as a row beside the findings."""
    row = {"code": value.name, "severity": value.verdict, "subject": value.subject, "detail": value.detail}
    return {**row, "evidence": [], "cure": None}


def diagnosis(healthy: bool, findings: list[dict[str, Any]], checks: Iterable[Check]) -> dict[str, Any]:
    """All of it: the findings, and what was looked at."""
    return {
        "schema_version": SCHEMA_VERSION,
        "healthy": healthy,
        "findings": findings,
        "checks": [
            {"name": c.name, "subject": c.subject, "verdict": c.verdict, "detail": c.detail} for c in checks
        ],
    }


def event(value: Happened) -> dict[str, Any]:
    """Something that has happened to a device, or to a group as a whole."""
    happened = value.event
    return {
        "schema_version": SCHEMA_VERSION,
        "time": round(value.time, 6),
        "event": happened.kind,
        "initial": value.initial,
        "group": happened.group,
        "address": happened.address,
        "bus": happened.bus,
        "before": _value(happened.before),
        "after": _value(happened.after),
    }


def _value(value: Value) -> Any:
    if isinstance(value, Node):
        return node(value)
    if isinstance(value, Device):
        return member_device(value)
    if isinstance(value, IommuGroup):
        return {"type": value.type, "devices": [shown(device.key) for device in value.devices]}
    return value


def state(asked: str, found: IommuGroup | Device | None, verdict: Viability | None) -> dict[str, Any]:
    """What a subject of wait is now; all null but the subject for what is not there."""
    device = found if isinstance(found, Device) else None
    members = found.devices if isinstance(found, IommuGroup) else (device,) if device else ()
    return {
        "subject": asked,
        "group": verdict and verdict.group.id,
        "address": device and device.address,
        "bus": device and device.bus,
        "drivers": drivers([{"driver": member.driver} for member in members]),
        "viable": verdict and verdict.viable,
        "usable": verdict and verdict.usable,
        "node": verdict and node(verdict.group.node),
        "cdev": device and node(device.cdev),
    }


def drivers(devices: Iterable[dict[str, Any]]) -> list[str]:
    """The drivers of some member records, each once."""
    return sorted({d["driver"] for d in devices if d["driver"]})


def ranges(value: Iterable[tuple[int, int]] | None) -> list[dict[str, int]] | None:
    """IOVA ranges, their ends inclusive."""
    return None if value is None else [{"start": start, "end": end} for start, end in value]
