"""Where a guest test runs: on which kernel, in which variant of the machine.

Host and guest collect the same files; both sides name the same test ``test_x[6.1]``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from tests.kernel.testbed.machine import MACHINES, STANDARD
from tests.kernel.testbed.rebuild import KERNELS

GUEST_VARIABLE = "VFIOCTL_TESTS_PLACE"  # set in a guest: the id of its place
MARKERS = (
    "machine(name): run in this variant of the test machine (see testbed/machine.py) instead of the standard one",
    "kernels(name, ...): run on these kernels (see testbed/rebuild.py) instead of those usual for the machine",
    "one_kernel(name): what the kernel's version has no part in: run on this one, on the usual ones only with "
    "VFIOCTL_TESTS_SWEEP=all",
    "deadline(seconds): how long this test may take in a guest (default 300)",
)
DEADLINE = 300.0  # seconds
EVERYTHING = os.environ.get("VFIOCTL_TESTS_SWEEP") == "all"


@dataclass(frozen=True)
class Place:
    """A kernel and a machine; ``str()`` is the id of its tests."""

    kernel: str
    machine: str = STANDARD.name

    def __str__(self) -> str:
        return self.kernel if self.machine == STANDARD.name else f"{self.kernel}-{self.machine}"


def inside_guest() -> str | None:
    """The id of the place when this process runs in a guest."""
    return os.environ.get(GUEST_VARIABLE)


def places_of(test: pytest.Item | pytest.Function) -> list[Place]:
    """The places where ``test`` has to run, by its markers; in a guest only that guest's."""
    machine = test.get_closest_marker("machine")
    kernels = test.get_closest_marker("kernels")
    if kernels is None and not EVERYTHING:
        kernels = test.get_closest_marker("one_kernel")
    variant = machine.args[0] if machine else STANDARD.name
    if variant not in MACHINES:
        raise pytest.UsageError(f"{test.nodeid}: no machine {variant!r}; there are {', '.join(MACHINES)}")
    chosen = kernels.args if kernels else MACHINES[variant].kernels
    if not chosen or not set(chosen) <= set(KERNELS):
        raise pytest.UsageError(f"{test.nodeid}: no kernel in {chosen!r}; there are {', '.join(KERNELS)}")
    places = [Place(kernel, variant) for kernel in chosen]
    here = inside_guest()
    return places if here is None else [place for place in places if str(place) == here]


def deadline_of(test: pytest.Item) -> float:
    """Seconds that ``test`` may take."""
    marker = test.get_closest_marker("deadline")
    return float(marker.args[0]) if marker else DEADLINE
