"""vfioctl explain"""

from __future__ import annotations

from typing import Any

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, resolve_all
from vfioctl.cli.output import Columns, Output, emit, output_options
from vfioctl.cli.session import Session

COLUMNS: Columns = {
    "subject": lambda r: r["subject"],
    "group": lambda r: r["group"],
    "rule": lambda r: r["rule"],
    "real": lambda r: "unknown" if r["isolation"]["real"] is None else r["isolation"]["real"],
    "agrees": lambda r: "unknown" if r["agrees"] is None else r["agrees"],
    "address": lambda r: r["address"],
    "code": lambda r: r["code"],
    "bridge": lambda r: r["bridge"],
    "capability": lambda r: _register(r, "acs_capability"),
    "control": lambda r: _register(r, "acs_control"),
    "missing": lambda r: r["evidence"] and r["evidence"]["acs_missing"],
    "detail": lambda r: r["detail"],
}
DEFAULT = ("group", "address", "code", "bridge", "real", "detail")
_NOTHING = dict.fromkeys(("address", "code", "bridge", "detail", "evidence"))


@click.command(
    "explain",
    epilog="""\b
Examples:
  vfioctl explain 26
  vfioctl explain eth0 -o address,code,bridge,capability,control
  vfioctl explain 0000:01:00.0 -J | jq -r '.explanations[].remedies[].detail'
  vfioctl explain 26 -J | jq -e '.explanations[0].isolation.real' || echo "not apart, or unknown"

\b
Exit status:
  0 explained, whatever the answer is, 3 no such group or device.""",
)
@click.argument("subjects", metavar="GROUP|DEVICE...", nargs=-1, required=True, type=SUBJECT)
@output_options(COLUMNS, DEFAULT)
@click.pass_obj
def command(session: Session, subjects: tuple[str, ...], output: Output) -> None:
    """Explain why devices share an IOMMU group: the kernel's own decision retraced, a row for each reason.

    For PCI: bridges that do DMA in another name, ports and functions without ACS or with ACS off, quirks, VMD; for
    other buses and IOMMUs the rule that they group by. On stderr: whether the group really is apart from others,
    whether the kernel has grouped as this explanation does, and what would make the group smaller.

    Only root can read the registers of ACS, and those of a function that sleeps are not read, for that would wake it;
    what depends on them is unknown then.
    """
    from vfioctl.host.reader import read_platform
    from vfioctl.host.topology import read_functions, unit_of
    from vfioctl.policy.topology.explain import Explainer, representative

    snapshot = session.snapshot(subjects)
    asked = resolve_all(session, snapshot, subjects)
    explainer = Explainer(snapshot, read_functions(session.root), read_platform(session.root))
    found = []
    for subject in asked:
        device = representative(subject)
        unit = None if device is None else unit_of(session.root, device.key)
        found.append(records.explanation(records.subject(subject), explainer.explain(subject, unit)))
    rows = [{**result, **reason} for result in found for reason in result["reasons"] or [_NOTHING]]
    emit(session, output, records.document("explanations", found), rows, COLUMNS)
    for result in found:
        _tell(result)


def _tell(result: dict[str, Any]) -> None:
    """What there is to say of the isolation, and what can be done, for people."""
    real = {True: "real", False: "not real", None: "unknown"}[result["isolation"]["real"]]
    messages.note(f"{result['subject']}: isolation from other groups: {real}")
    for caveat in result["isolation"]["caveats"]:
        messages.note(f"  {caveat['code']}: {caveat['detail']}")
    for remedy in result["remedies"]:
        messages.note(f"  cure: {remedy['code']}: {remedy['detail']}")


def _register(row: Any, key: str) -> str | None:
    """A register of ACS in hexadecimal."""
    value = row["evidence"] and row["evidence"][key]
    return None if value is None else f"{value:#06x}"
