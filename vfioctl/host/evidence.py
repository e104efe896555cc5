"""Reading what proves the cause of a failure: small files of the kernel, links and nodes (floor 2)."""

from __future__ import annotations

import glob
import os
import re
from contextlib import suppress

from vfioctl.host.files import link_name, read
from vfioctl.host.reader import stat_node
from vfioctl.model import Access, Evidence, Look

#: A value is for a message, and what is looked at says no more.
_LIMIT = 400


def look_at(look: Look, root: str = "/") -> list[Evidence]:
    """What each file says that there is of that name; one that cannot be read is left out."""
    prefix = root.rstrip("/")
    path = prefix + look.file
    found = []
    for each in sorted(glob.iglob(path)) if "*" in path else [path]:
        with suppress(OSError):
            value = _value(each, look)
            if value:
                found.append(Evidence(each.removeprefix(prefix), value[:_LIMIT]))
    return found


def _value(path: str, look: Look) -> str | None:
    if look.access:
        node = stat_node(path)
        return node and str(Access(node.uid, node.gid, node.mode))
    if os.path.islink(path):
        return link_name(path)
    if not os.path.isfile(path):  # to open a node would be more than a look
        return None
    text = (read(path) or "").replace("\0", " ").strip()
    if look.lines is None:
        return text
    return "; ".join(" ".join(line.split()) for line in text.split("\n") if re.search(look.lines, line))
