"""Telling systemd how a service is getting on: sd_notify(3), which is one datagram."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Sends ``READY=1`` and the like to whom NOTIFY_SOCKET names; to nobody where it names nobody. Raises OSError."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
