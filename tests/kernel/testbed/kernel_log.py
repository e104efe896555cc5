"""The guest's kernel log, from a moment on."""

from __future__ import annotations

import os


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

    def dmar_faults(self) -> list[str]:
        """The faults among the messages since the last call: "DMAR: [DMA Write NO_PASID] Request device ..."."""
        return [line for line in self.read() if line.startswith("DMAR: [")]

    def close(self) -> None:
        os.close(self._descriptor)
