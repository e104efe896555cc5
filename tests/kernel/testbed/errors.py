"""What can keep the test-bed from running at all."""

from __future__ import annotations


class TestbedUnavailableError(Exception):
    """This machine cannot run the kernel tests: says why, and the cure."""

    __test__ = False  # pytest would take the name for a test class

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason = reason
        self.cure = cure
