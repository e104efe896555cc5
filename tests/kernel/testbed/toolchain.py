"""The compiler that Debian's kernels are built with, in a directory of its own.

It is that of a newer Debian than this machine's, so its programs are run by their own dynamic linker on their own
libraries: nothing is installed, nobody has to be root, and the machine's own compiler does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.kernel.testbed.cache import cache_directory, lock, new_directory
from tests.kernel.testbed.debian import Archive

COMPILER = "gcc-14-x86-64-linux-gnu"
PACKAGES = (
    COMPILER,
    "cpp-14-x86-64-linux-gnu",
    "binutils-x86-64-linux-gnu",
    # The libraries of these and of the kernel's own build tools (linux-kbuild).
    *(
        "libbinutils",
        "libc6",
        "libctf-nobfd0",
        "libctf0",
        "libelf1t64",
        "libgmp10",
        "libisl23",
        "libjansson4",
    ),
    *("libmpc3", "libmpfr6", "libsframe1", "libssl3t64", "libzstd1", "zlib1g"),
)
RECIPE = "1"  # raise it when what is made of the packages changes


@dataclass(frozen=True)
class Toolchain:
    """Lies under ``root``; ``programs`` belongs at the head of PATH."""

    root: Path

    @property
    def programs(self) -> Path:
        return self.root / "usr/bin"

    def adopt(self, directory: Path, place: Path) -> None:
        """Have the ELF programs below ``directory``, to be used at ``place``, run on this tool chain's libraries.

        A script takes the place of each.
        """
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        for file in list(directory.rglob("*")):
            if file.is_symlink() or not file.is_file() or ".so" in file.name or not _is_elf(file):
                continue
            program = file.rename(file.with_name(f"{file.name}.elf"))
            # The compiler finds its parts by the name that it was called by.
            file.write_text(
                "#!/bin/sh\n"
                f'exec "{libraries}/ld-linux-x86-64.so.2" --library-path "{libraries}" --argv0 "$0"'
                f' "{place / program.relative_to(directory)}" "$@"\n'
            )
            file.chmod(0o755)


def prepare_toolchain(archive: Archive) -> Toolchain:
    """The tool chain, from the cache or from the archive. Raises TestbedUnavailableError."""
    archive.refresh()
    version = archive.fields(COMPILER)["Version"]
    final = Toolchain(cache_directory() / f"toolchain-{version}_{RECIPE}")
    with lock(cache_directory() / "toolchain.lock"):
        if not final.root.exists():
            with new_directory(final.root) as root:
                archive.unpack(PACKAGES, root)
                for name in ("as", "ld"):
                    (root / "usr/bin" / name).symlink_to(f"x86_64-linux-gnu-{name}")
                for part in ("usr/bin", "usr/libexec"):
                    final.adopt(root / part, final.root / part)
    return final


def _is_elf(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(4) == b"\x7fELF"
