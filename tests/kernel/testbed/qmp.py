"""The emulator's monitor, spoken from inside the guest."""

from __future__ import annotations

import json
import os
import selectors
import time
from pathlib import Path
from typing import Any

PORT = Path("/run/testbed/testbed.qmp")
SECONDS = 60.0


class Qmp:
    """A QMP session (QEMU, docs/interop/qmp-spec). Events that come in between are kept in ``events``."""

    def __init__(self, port: Path = PORT) -> None:
        self._port = os.open(port, os.O_RDWR | os.O_NONBLOCK)
        self._pending = b""
        self.events: list[dict[str, Any]] = []
        # The greeting went to whoever opened the port first; every opener may ask for the command mode.
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a monitor command and return its value; AssertionError with QEMU's words when it refuses."""
        request = {
            "execute": command,
            "arguments": {name.replace("_", "-"): v for name, v in arguments.items()},
        }
        os.write(self._port, json.dumps(request).encode() + b"\n")
        until = time.monotonic() + SECONDS
        while True:
            message = self._message(until)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise AssertionError(f"{command} {arguments}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def wait_event(self, name: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The next event called ``name``, also one that has come already; takes it out of ``events``."""
        until = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            message = self._message(until)
            if "event" in message:
                self.events.append(message)

    def device_add(self, driver: str, identity: str, bus: str, **properties: Any) -> None:
        """Plug a device in; ``bus`` is the role of the port."""
        self.execute("device_add", driver=driver, id=identity, bus=bus, **properties)

    def device_del(self, identity: str) -> None:
        """Ask for a device (by its id: the role, for those there at boot) to be unplugged; the guest must agree."""
        self.execute("device_del", id=identity)

    def close(self) -> None:
        os.close(self._port)

    def _message(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._pending:
            with selectors.DefaultSelector() as selector:
                selector.register(self._port, selectors.EVENT_READ)
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise AssertionError(f"QEMU's monitor said nothing in time; events: {self.events}")
            self._pending += os.read(self._port, 65536)
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
