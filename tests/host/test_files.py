"""Reading files of the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vfioctl.host.files import read


def test_a_file_of_procfs_is_read_to_its_end() -> None:
    """A read of it ends where the next line would not fit, well before the size that was asked for."""
    program = "import mmap; kept = [mmap.mmap(-1, 4096) for _ in range(99)]; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        path = f"/proc/{other.pid}/maps"
        whole = Path(path).read_text().splitlines()
        found = (read(path) or "").splitlines()
        other.communicate(b"\n")
    assert sum(map(len, whole)) > 4096
    assert found[-1] == whole[-1]
    assert len(found) > len(whole) - 5  # its heap may have grown meanwhile
