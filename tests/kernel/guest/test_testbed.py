"""The test-bed itself."""

import os


def test_kernel(machine):
    assert os.uname().release.startswith(machine)


def test_fails():
    assert os.uname().nodename == "x"
