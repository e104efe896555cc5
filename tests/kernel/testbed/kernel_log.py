"""The guest's kernel log, from a moment on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

#: Of an IOMMU's faults the kernel logs ten in five seconds and drops the rest, whoever makes them.
RATELIMIT = 5.0  # seconds


class KernelLog:
    """Messages of the kernel since this was made or last ``mark``ed (DMAR faults, for one)."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.mark()

    def mark(self) -> None:
        """Forget what was logged until now."""
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self) -> list[str]:
        """The text of the messages that came since the last call."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._descriptor, 8192)
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # older records were overwritten; the next read goes on after them
                continue
            text = record.decode(errors="replace").split("\n", 1)[0]
            lines.append(text.partition(";")[2])

    def wait_for(self, text: str, act: Callable[[], object], tries: int = 4) -> str:
        """The message with ``text`` that ``act`` brings about; it is done again when the kernel has dropped it.
        AssertionError when none comes."""
        for _ in range(tries):
            self.mark()
            act()
            until = time.monotonic() + RATELIMIT + 1
            while time.monotonic() < until:
                for line in self.read():
                    if text in line:
                        return line
                time.sleep(0.1)
        raise AssertionError(f"the kernel never logged {text!r}")

    def dmar_faults(self) -> list[str]:
        """The faults among the messages since the last call: "DMAR: [DMA Write NO_PASID] Request device ..."."""
        return [line for line in self.read() if line.startswith("DMAR: [")]

    def close(self) -> None:
        os.close(self._descriptor)
