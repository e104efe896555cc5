"""The root file system of a guest of another architecture: a small Debian with Python, unpacked and never run here."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.kernel.testbed.architecture import Architecture
from tests.kernel.testbed.cache import cache_directory, lock, new_directory
from tests.kernel.testbed.debian import Archive

PACKAGES = ("busybox-static", "python3-minimal", "libpython3-stdlib", "kmod", "libudev1")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
PYTHON = "python3.11"  # bookworm's
MERGED = ("bin", "lib", "lib64", "sbin")  # links to what is below /usr


def prepare_root(architecture: Architecture) -> Path:
    """The root file system as a directory of this machine, from the cache or from the archive.

    Raises TestbedUnavailableError.
    """
    if architecture.native:
        return Path("/")
    key = hashlib.sha256(repr((PACKAGES, FILES)).encode()).hexdigest()[:8]
    directory = cache_directory() / "roots" / f"{architecture.debian}-{key}"
    with lock(directory.with_suffix(".lock")):
        if not directory.exists():
            archive = Archive(architecture)
            archive.refresh()
            with new_directory(directory) as temporary:
                _unpack(archive, temporary)
    return directory


def _unpack(archive: Archive, root: Path) -> None:
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    archive.unpack(archive.with_dependencies(PACKAGES), root)
    for name in ("dev", "proc", "sys", "run", "root", "mnt", "etc"):
        (root / name).mkdir(exist_ok=True)
    for path, text in FILES.items():
        (root / path).write_text(text)
    # What a guest compiles it cannot keep. Only the same version of Python can do it for it.
    python = shutil.which(PYTHON)
    if python is not None:
        subprocess.run(
            [python, "-m", "compileall", "-q", "-s", root, root / "usr/lib" / PYTHON],
            check=False,  # lib2to3 has files that are no Python on purpose
            stdout=subprocess.DEVNULL,
        )
