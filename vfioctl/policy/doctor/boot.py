"""What ``ids=`` of vfio-pci takes at the next boot, and whether it gets it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.model import Device, Evidence, PciIds, shown
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity, listed
from vfioctl.policy.doctor.options import canonical, options, rules, unread
from vfioctl.policy.viability import is_vfio_bound

_ANY = 0xFFFFFFFF


class Ids(NamedTuple):
    """An entry of ids=: vendor, device, subsystem ids, class and mask (drivers/vfio/pci/vfio_pci.c,
    vfio_pci_fill_ids; drivers/pci/pci.h, pci_match_one_device)."""

    text: str
    numbers: tuple[int, ...]

    def matches(self, pci: PciIds) -> bool:
        """Whether the kernel would find that the device is one of these."""
        *ids, class_, mask = self.numbers
        mine = (pci.vendor, pci.device, pci.subsystem_vendor, pci.subsystem_device)
        return (int(pci.class_, 16) ^ class_) & mask == 0 and all(
            wanted in (_ANY, int(number, 16)) for wanted, number in zip(ids, mine, strict=True)
        )


def parse(entry: str) -> Ids | None:
    """``vendor:device[:subvendor[:subdevice[:class[:mask]]]]``, hexadecimal; None for what the kernel skips."""
    fields = entry.split(":")
    if not 2 <= len(fields) <= 6 or not all(re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", f) for f in fields):
        return None
    numbers = [int(field, 16) for field in fields]
    return Ids(entry, (*numbers, *(_ANY, _ANY, _ANY, _ANY, 0, 0)[len(numbers) :]))


def checks(case: Case) -> Iterator[Check]:
    """The ids that vfio-pci is given when it is loaded."""
    found: list[Finding] = []
    given = [o for o in options(case.readings) if (o.module, o.name) == ("vfio_pci", "ids")]
    for option in given:
        for entry in filter(None, option.value.split(",")):
            ids = parse(entry)
            if ids is None:
                detail = f"{entry!r} is no vendor:device in hexadecimal: the kernel skips it"
                found.append(
                    Finding(
                        "ids-malformed",
                        Severity.WARNING,
                        entry,
                        detail,
                        (option.evidence,),
                        _correct(option.evidence),
                    )
                )
            else:
                found += _judge(case, ids, option.evidence)
    why = unread(case.readings)
    detail = ", ".join(dict.fromkeys(option.value for option in given)) or why or "none are given"
    yield Check("ids", None, detail, tuple(found), why is None)


def _correct(evidence: Evidence) -> str:
    return f"correct it in {evidence.file}"


def _judge(case: Case, ids: Ids, evidence: Evidence) -> Iterator[Finding]:
    matching = [d for d in case.snapshot.devices if d.pci is not None and ids.matches(d.pci)]
    if not matching:
        detail = "no device here has these ids"
        yield Finding("ids-unmatched", Severity.INFO, ids.text, detail, (evidence,), _correct(evidence))
        return
    names = [shown(device.key) for device in matching]
    if len(matching) > 1:
        yield Finding(
            "ids-take-twins",
            Severity.WARNING,
            ids.text,
            f"{len(matching)} devices have these ids, and vfio-pci takes every one that is free: {listed(names)}",
            (
                evidence,
                *(
                    Evidence(f"/sys/bus/pci/devices/{d.address}/modalias", d.modalias or "")
                    for d in matching[:8]
                ),
            ),
            "bind the one that is meant by its address (driver_override) in place of ids=, for example: "
            f"vfioctl bind {names[0]}",
        )
    first = {
        canonical(rule.module)
        for rule in rules(case.readings)
        if rule.command == "softdep" and any(canonical(word) == "vfio_pci" for word in rule.words)
    }
    for device in matching:
        if not is_vfio_bound(device) and device.driver is not None and canonical(device.driver) not in first:
            yield _lost(device, device.driver, ids, evidence)


def _lost(device: Device, driver: str, ids: Ids, evidence: Evidence) -> Finding:
    return Finding(
        "ids-too-late",
        Severity.WARNING,
        shown(device.key),
        f"vfio-pci is to have it by ids={ids.text}, and {driver} has it: vfio-pci was loaded later, or not at all",
        (evidence, Evidence(f"/sys/bus/pci/devices/{device.address}/driver", driver)),
        f"vfioctl bind {shown(device.key)} for now; for the next boot a line softdep {driver} pre: vfio-pci in "
        "/etc/modprobe.d, and vfio-pci in the initramfs, if the driver is loaded there",
    )
