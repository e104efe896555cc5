"""What of a host goes into a snapshot: all that the looking commands read, and nothing else."""

from vfioctl.host.extent.asked import ask
from vfioctl.host.extent.collect import Collected, collect

__all__ = ["Collected", "ask", "collect"]
