"""What the commands on interrupts have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vfioctl.cli.output import Columns, Output, emit
from vfioctl.cli.records import SCHEMA_VERSION, irq
from vfioctl.cli.session import Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vfioctl.ops.irqs import Irq

COLUMNS: Columns = {
    "device": lambda r: r["device"],
    "irq": lambda r: r["name"],
    "enabled": lambda r: r["enabled"],
    "changed": lambda r: r["changed"],
}
DEFAULT = ("device", "irq", "enabled", "changed")


class Kind(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """The name of an interrupt, completed with those of PCI devices; others have theirs."""

    name = "kind"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = ("intx", "msi", "msix", "err", "req")
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


KIND = Kind()


def emit_changed(session: Session, output: Output, device: str, found: Irq, changed: bool) -> None:
    """What an interrupt is now."""
    record = {"device": device, **irq(found), "changed": changed}
    emit(session, output, {"schema_version": SCHEMA_VERSION, **record}, [record], COLUMNS)
