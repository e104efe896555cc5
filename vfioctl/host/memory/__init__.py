"""Memory to map for devices, of all kinds behind one interface, and what may be had and locked of it (floor 2)."""

from __future__ import annotations

from vfioctl.host.memory.limits import HugePages, Memlock, available, charged, hugepages, memlock, pinned_by
from vfioctl.host.memory.source import ANONYMOUS, FileFacts, Memory, Source, file_facts, load, make

__all__ = [
    "ANONYMOUS",
    "FileFacts",
    "HugePages",
    "Memlock",
    "Memory",
    "Source",
    "available",
    "charged",
    "file_facts",
    "hugepages",
    "load",
    "make",
    "memlock",
    "pinned_by",
]
