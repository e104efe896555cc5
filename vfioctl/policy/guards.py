"""The guards that may be passed, each by its own name and never all at once."""

from __future__ import annotations

#: What --allow takes. Other guards (a bridge, an unfinished change) protect what cannot work and are never passed.
ALLOWABLE_GUARDS = ("new-id-match", "not-a-vfio-driver")
