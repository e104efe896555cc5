"""The files by which ``doctor`` judges a host, all below one root, and read without waiting for anybody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from vfioctl.host import modules
from vfioctl.host.files import GONE, forbidden, names, read
from vfioctl.host.reader import node_at
from vfioctl.model import Node, Readings, Unread

#: Larger than any file that is looked for.
_LIMIT = 16 << 20

_PARAMETERS = (
    "vfio/parameters/enable_unsafe_noiommu_mode",
    "vfio_iommu_type1/parameters/allow_unsafe_interrupts",
    "vfio_iommu_type1/parameters/disable_hugepages",
    "iommufd/parameters/allow_unsafe_interrupts",
    "vfio_pci/parameters/disable_denylist",
)
_FILES = (
    "/proc/cmdline",
    "/proc/sys/kernel/tainted",
    "/sys/kernel/security/lockdown",
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    *(f"/sys/module/{name}" for name in _PARAMETERS),
)
#: Where modprobe looks (kmod, man/modprobe.d.5): of files with one name the first counts.
_MODPROBE = tuple(f"{top}/modprobe.d" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
_HUGE_PAGES = "/sys/kernel/mm/hugepages"
_NODES = ("/dev/vfio/vfio",)
_OF_DEVICE = ("power_state", "d3cold_allowed", "reset_method")
_MODULES = (
    "vfio", "vfio_pci", "vfio_iommu_type1", "vfio_iommu_spapr_tce", "iommufd", "vfio_platform", "vfio_amba",
    "vfio_fsl_mc", "vfio_cdx", "vfio_ccw", "vfio_ap",
)  # fmt: skip


def read_readings(root: str, release: str | None, keys: Iterable[str] = ()) -> Readings:
    """What there is to read of a host with a kernel ``release``, and of the devices ``keys`` (bus/address). A
    device's ``reset``, which cannot be read, is an empty text when it is there."""
    paths = [*_FILES, *files_of(root, _MODPROBE, ".conf"), f"/boot/config-{release}", *_huge_pages(root)]
    homes = [f"/sys/bus/{key.replace('/', '/devices/', 1)}" for key in keys]
    paths += [f"{home}/{name}" for home in homes for name in _OF_DEVICE]
    texts = {path: read_text(root, path) for path in paths}
    for home in homes:
        there = os.path.lexists(_at(root, f"{home}/reset"))
        texts[f"{home}/reset"] = "" if there else Unread.ABSENT
    return Readings(texts, dict(_nodes(root)), modules.states(root, release or "", _MODULES))


def files_of(root: str, directories: Sequence[str], suffix: str) -> list[str]:
    """The files of some directories in the order of their names; of those with one name that of the first directory."""
    found: dict[str, str] = {}
    for directory in directories:
        try:
            for name in names(_at(root, directory)):
                if name.endswith(suffix):
                    found.setdefault(name, f"{directory}/{name}")
        except PermissionError:
            found.setdefault("", f"{directory}/")  # that it is forbidden is told when it is read
    return [found[name] for name in sorted(found)]


def read_text(root: str, path: str) -> str | Unread:
    """The text of a regular file. A symbolic link that is absolute leads below ``root`` too."""
    here = _at(root, path)
    try:
        target = os.readlink(here)
        here = _at(root, target) if os.path.isabs(target) else here
    except OSError:  # none, or a directory on the way that may not be searched: opening says which
        pass
    try:
        status = os.stat(here)
        if stat.S_ISDIR(status.st_mode):
            os.listdir(here)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            return Unread.FAILED
        text = read(here)
    except OSError as error:
        if isinstance(forbidden(error), PermissionError):
            return Unread.FORBIDDEN
        return Unread.ABSENT if error.errno in GONE else Unread.FAILED
    return Unread.ABSENT if text is None else text


def _huge_pages(root: str) -> list[str]:
    sizes = names(_at(root, _HUGE_PAGES))
    return [f"{_HUGE_PAGES}/{size}/{name}" for size in sizes for name in ("nr_hugepages", "free_hugepages")]


def _nodes(root: str) -> Iterator[tuple[str, Node | Unread]]:
    for path in _NODES:
        try:
            yield path, node_at(root, path) or Unread.ABSENT
        except PermissionError:
            yield path, Unread.FORBIDDEN


def _at(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))
