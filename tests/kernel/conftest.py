"""Both ends of the kernel tests: on the host guests are booted, in a guest reports are sent to the host."""

from __future__ import annotations

import pytest

from tests.kernel.testbed.guest_plugin import GuestPlugin
from tests.kernel.testbed.host_plugin import HostPlugin
from tests.kernel.testbed.places import MARKERS, inside_guest


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    plugin = GuestPlugin(config) if inside_guest() else HostPlugin(config)
    config.pluginmanager.register(plugin, "kernel-testbed")
