"""The most specific VFIO driver for a PCI device, by the aliases that modules announce (Linux 5.15 and newer).

Ids that a driver marks as override-only (PCI_DRIVER_OVERRIDE_DEVICE_VFIO in include/linux/pci.h) become aliases that
begin with ``vfio_pci:`` in place of ``pci:`` (scripts/mod/file2alias.c). vfio_pci itself has one for any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from vfioctl.model import VFIO_DRIVERS, ModuleAlias

PREFIX = "vfio_pci:"
ANY_DEVICE = "vfio_pci:v*d*sv*sd*bc*sc*i*"


class Choice(NamedTuple):
    """The alias that won, and why, in words."""

    alias: ModuleAlias
    why: str


def choose(modalias: str, aliases: Sequence[ModuleAlias]) -> Choice | None:
    """The matching alias with the fewest ``*``; None when none matches."""
    wanted = PREFIX + modalias.removeprefix("pci:")
    matching = [alias for alias in aliases if fnmatchcase(wanted, alias.pattern)]
    if not matching or not modalias.startswith("pci:"):
        return None
    best = min(matching, key=lambda alias: alias.pattern.count("*"))
    if best.pattern == ANY_DEVICE:
        return Choice(
            best, f"only its alias for any device matches ({ANY_DEVICE}): there is no variant for this one"
        )
    return Choice(
        best,
        f"its module {best.module} has the most specific alias that matches, {best.pattern} (of {len(matching)})",
    )


def known_driver(module: str) -> str | None:
    """The driver in a module of Linux; None for one that is not known: a driver's name is not its module's."""
    return next((driver for driver in VFIO_DRIVERS if driver.replace("-", "_") == module), None)
