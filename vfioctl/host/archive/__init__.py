"""Archives of snapshots, compressed tar files: written from entries, and unpacked as if an attacker had made them."""

from vfioctl.host.archive.entry import Entry, Kind
from vfioctl.host.archive.pack import compression_of, pack
from vfioctl.host.archive.unpack import unpack

__all__ = ["Entry", "Kind", "compression_of", "pack", "unpack"]
