"""In a guest: run a command and send what it prints to the host at once, ``{"output": text}`` a line.

Each role is an environment variable of the command: ``$edu``, ``$nic_a``. With
TESTBED_TERMINAL=ROWSxCOLUMNS it runs on a terminal of that size, otherwise on a pipe. The exit status is its own.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

from tests.kernel.testbed.guest_plugin import RESULTS
from tests.kernel.testbed.roles import write_roles


def main() -> int:
    """Run the command in ``sys.argv``."""
    size = os.environ.get("TESTBED_TERMINAL")
    if size:
        reader, writer = pty.openpty()
        rows, columns = (int(number) for number in size.split("x"))
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    else:
        reader, writer = os.pipe()
    stdin = writer if size else subprocess.DEVNULL
    process = subprocess.Popen(
        sys.argv[1:],
        stdin=stdin,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
        env={**os.environ, **write_roles()},
    )
    os.close(writer)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with RESULTS.open("wb", buffering=0) as results:
        while data := _read(reader):
            results.write(json.dumps({"output": decoder.decode(data)}).encode() + b"\n")
    status = process.wait()
    return status if status >= 0 else 128 - status


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # EIO: the terminal's last user has closed it
        return b""


if __name__ == "__main__":
    sys.exit(main())
