"""Signals that whoever called vfioctl has chosen to ignore."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from vfioctl.ops.signals import Interrupted, Signals


def test_what_is_ignored_stays_ignored() -> None:
    """nohup, and jobs in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with pytest.raises(Interrupted, match="SIGTERM"), Signals():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGCHLD", "SIGINT"])
def test_a_caller_who_ignores_a_signal(name: str) -> None:
    """Children are waited for all the same, and an interrupt goes on being ignored."""
    script = f"""
import os, signal, sys
from vfioctl import __main__
from vfioctl.host import bounded
def main(args=None):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        print("ignored", flush=True)
    return bounded.call(lambda: 5, 10)
__main__.main = main
signal.signal(signal.{name}, signal.SIG_IGN)
__main__.program()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 5, done.stderr
    assert (done.stdout == "ignored\n") == (name == "SIGINT")
