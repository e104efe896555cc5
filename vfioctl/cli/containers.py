"""What the commands that use open containers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfioctl.cli import messages, records
from vfioctl.cli.output import Columns, Output, emit, output_options, text
from vfioctl.cli.session import Session
from vfioctl.policy.sizes import format_iova

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


class ContainerName(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """The name of an open container, completed from those that there are."""

    name = "container"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from vfioctl.host.machine import Machine
        from vfioctl.ops.keeper.named import names

        return [CompletionItem(name) for name in names(Machine()) if name.startswith(incomplete)]


CONTAINER = ContainerName()


def container_option(function: F) -> Any:
    """Adds ``-c/--container NAME``; the command gets it as ``container``."""
    return click.option(
        "-c",
        "--container",
        metavar="NAME",
        type=CONTAINER,
        help="The open container to use (vfioctl container open).",
    )(function)


def required_container(function: F) -> Any:
    """Adds ``-c/--container NAME``, without which nothing is done."""
    return click.option(
        "-c", "--container", metavar="NAME", type=CONTAINER, required=True, help="The open container to use."
    )(function)


#: What was mapped together, as a row.
MAPPING_COLUMNS: Columns = {
    "iova": lambda r: format_iova(r["iova"]),
    "size": lambda r: r["size"],
    "prot": lambda r: r["prot"],
    "source": lambda r: r["source"],
    "chunk": lambda r: r.get("chunk"),
}


#: What is said of a change that has nothing else to tell.
CHANGED_COLUMNS: Columns = {"container": lambda r: r["container"], "changed": lambda r: r["changed"]}


def changed_output(function: F) -> Any:
    """Adds the output options of a command that ends with ``emit_changed``."""
    return output_options(CHANGED_COLUMNS, tuple(CHANGED_COLUMNS))(function)


def emit_changed(session: Session, output: Output, container: str) -> None:
    """Says that a container has been changed."""
    record = {"container": container, "changed": True}
    emit(session, output, {"schema_version": records.SCHEMA_VERSION, **record}, [record], CHANGED_COLUMNS)


def container_record(found: dict[str, Any]) -> dict[str, Any]:
    """The public record of a container, from its keeper's."""
    from vfioctl.policy.iova import page_sizes

    return {
        **{key: found[key] for key in ("name", "pid", "backend")},
        "unsafe": found["backend"] == "noiommu",
        **{key: found[key] for key in ("groups", "devices", "mappings")},
        "page_sizes": None if found["page_sizes"] is None else list(page_sizes(found["page_sizes"])),
        "iova_ranges": records.ranges(found["iova_ranges"]),
        **{key: found[key] for key in ("dma_avail", "accounting", "locked", "memlock")},
        **{key: found[key] for key in ("release_on_request", "details")},
    }


def warn(found: dict[str, Any]) -> None:
    """Says on stderr what is dangerous, which devices somebody wants back, and which are gone."""
    if found["backend"] == "noiommu":
        messages.note(
            f"{found['name']} has no IOMMU: nothing keeps its devices from any of the host's memory (the kernel is "
            "tainted)"
        )
    for device in found["devices"]:
        if device["gone"]:
            messages.note(f"{device['address']} is gone: it was unplugged, or is being removed")
        elif device["wanted_back"]:
            messages.note(
                f"{device['address']} is wanted back by the host: somebody unbinds or removes it, and waits; "
                f"vfioctl container remove {found['name']} {device['group']} lets it go"
            )


def detail_lines(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What a backend alone tells, a line for each value."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += detail_lines(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            each = (
                " ".join(f"{name}={_word(name, item)}" for name, item in entry.items()) for entry in value
            )
            lines += [f"{prefix}{key}={words}" for words in each]
        elif value is not None:
            lines.append(f"{prefix}{key}={text(value)}")
    return lines


def _word(name: str, item: Any) -> str:
    if name in ("start", "end"):
        return format_iova(item)
    if isinstance(item, list) and item and isinstance(item[0], dict):
        return ",".join(":".join(f"{name}={value}" for name, value in each.items()) for each in item)
    return text(item)
