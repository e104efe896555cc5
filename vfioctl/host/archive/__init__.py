"""Archives of snapshots, compressed tar files: written from entries, and unpacked as if an attacker had made them."""

from vfioctl.host.archive.entry import Entry, Kind
from vfioctl.host.archive.unpacking import unpack
from vfioctl.host.archive.writing import compression_of, pack

__all__ = ["Entry", "Kind", "compression_of", "pack", "unpack"]
