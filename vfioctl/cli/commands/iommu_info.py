"""vfioctl iommu-info"""

from __future__ import annotations

import sys
from typing import Any

import click

from vfioctl.cli import messages, records
from vfioctl.cli.arguments import SUBJECT, group_numbers, resolve
from vfioctl.cli.containers import detail_lines
from vfioctl.cli.output import Output, emit, output_options, text
from vfioctl.cli.session import Session
from vfioctl.errors import UsageError, visible
from vfioctl.ops.backends.choice import BACKENDS
from vfioctl.policy.iova import page_sizes
from vfioctl.policy.subjects import find_group


@click.command(
    "iommu-info",
    epilog="""\b
Examples:
  vfioctl iommu-info
  vfioctl iommu-info 26
  vfioctl iommu-info 26 --attach -J | jq '.iova_ranges'""",
)
@click.argument("subject", metavar="[GROUP|DEVICE]", required=False, type=SUBJECT)
@click.option(
    "--attach",
    is_flag=True,
    help="Put the group into a container for a moment and ask: page sizes, IOVA ranges, entries left. "
    "The group's devices can do no DMA meanwhile; with iommufd they are opened, and so reset.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="With --attach: which kind of address space.",
)
@output_options()
@click.pass_obj
def command(session: Session, subject: str | None, attach: bool, backend: str, output: Output) -> None:
    """Show what the IOMMU offers: API version, extensions, and for a group its type and reserved regions.

    What only an attached group tells (page sizes, IOVA ranges, DMA entries left) is shown with --attach.
    """
    if attach and subject is None:
        raise UsageError("--attach needs a GROUP or DEVICE to attach")
    record: dict[str, Any] = {"group": None, "type": None, "reserved_regions": None, "backend": None}
    if subject is not None:
        snapshot = session.snapshot((subject,))
        (number,) = group_numbers(snapshot, [resolve(session, snapshot, subject)])
        group = find_group(snapshot, number)
        record["group"] = group.id
        record["type"] = group.type
        record["reserved_regions"] = [records.region(region) for region in group.reserved_regions]
    record |= dict.fromkeys(("page_sizes", "iova_ranges", "dma_avail", "dirty_page_sizes", "details"))
    if attach:
        record |= _attached(session, record["group"], backend)
    elif session.replay:  # files of another host answer no ioctl, but a snapshot has what its host answered
        from vfioctl.host.recorded import recorded

        known = recorded(session.root)
        record |= {
            "api_version": known and known.api_version,
            "extensions": dict(known.extensions) if known else {},
        }
    else:
        from vfioctl.ops.status import probe_container

        container = probe_container(session.machine.dev)
        record |= {"api_version": container.api_version, "extensions": dict(container.extensions)}
    if output.format in ("json", "yaml"):
        emit(session, output, {"schema_version": records.SCHEMA_VERSION, **record})
        return
    _print(record)
    if subject is not None and not attach:
        messages.note("page sizes, IOVA ranges and entries left: --attach asks for them")


def _attached(session: Session, group: int, backend: str) -> dict[str, Any]:
    from vfioctl.ops.keeper.spawn import temporary

    with temporary(session.machine, backend) as client:
        client.call("add", {"groups": [group]})
        found = client.show()
    details = dict(found["details"])
    dirty = details.pop("dirty_page_sizes", None)
    return {
        "backend": found["backend"],
        "api_version": details.pop("api_version", None),
        "extensions": details.pop("extensions", {}),
        "page_sizes": None if found["page_sizes"] is None else list(page_sizes(found["page_sizes"])),
        "iova_ranges": records.ranges(found["iova_ranges"]),
        "dma_avail": found["dma_avail"],
        "dirty_page_sizes": dirty and list(page_sizes(dirty)),
        "details": details,
    }


def _print(record: dict[str, Any]) -> None:
    lines = [f"api_version={text(record['api_version'])}"]
    lines += [f"extension.{name}={text(answer)}" for name, answer in record["extensions"].items()]
    if record["group"] is not None:
        lines += [f"{key}={text(record[key])}" for key in ("group", "type")]
        lines += [
            f"reserved_region={r['start']:#x}-{r['end']:#x} {r['type']}"
            for r in record["reserved_regions"] or []
        ]
    if record["backend"] is not None:
        lines += [
            f"{key}={text(record[key])}" for key in ("backend", "page_sizes", "dma_avail", "dirty_page_sizes")
        ]
        lines += [f"iova_range={r['start']:#x}-{r['end']:#x}" for r in record["iova_ranges"] or []]
        lines += detail_lines(record["details"])
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
