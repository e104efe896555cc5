"""Debian packages by the ordinary client: find the newest by the index, download, unpack.

Works on a private apt state, so that the machine's own package lists are neither needed nor touched, and
another suite than the machine's can be asked. Where to ask is read from the machine's own configuration.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.testbed.architecture import X86_64, Architecture
from tests.kernel.testbed.cache import cache_directory, lock
from tests.kernel.testbed.errors import TestbedUnavailableError

# The newer Debian beside the machine's own: the later kernels, and the compiler that they are built with.
NEWER = ("trixie", "trixie-backports")
INDEX_MAX_AGE = 6 * 3600  # seconds
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
APT_CURE = "check the network and that apt's sources name a Debian 12 archive (apt-get update)"


@dataclass(frozen=True)
class Series:
    """A kernel series of a suite: what its packages are called. ``name`` is the id of its tests."""

    name: str
    #: Regular expression of the suite's image packages, but for the flavour at the end; group 1 is the release.
    image: str

    def choose(self, packages: Sequence[str], flavour: str) -> str | None:
        """The newest of ``packages`` that is an image of this series.

        A suite that moves on drops a series: then the newest image of the nearest later series stands in.
        """
        images = [package for package in packages if self._match(package, flavour)]
        wanted = version_key(self.name)
        later = {version_key(image)[:2] for image in images if version_key(image)[:2] >= wanted}
        if not later:
            return None
        return max((image for image in images if version_key(image)[:2] == min(later)), key=version_key)

    def release(self, package: str, flavour: str) -> str:
        """The kernel release (``uname -r``) of an image package."""
        match = self._match(package, flavour)
        if match is None:
            raise ValueError(f"{package} is no kernel image of the series {self.name}")
        return match[1]

    def _match(self, package: str, flavour: str) -> re.Match[str] | None:
        return re.fullmatch(rf"linux-image-({self.image}-{flavour})", package)


SERIES = {
    series.name: series
    for series in (
        Series("6.1", r"6\.1\.0-\d+"),
        Series("6.12", r"6\.12\.\d+\+deb1[23](?:\.\d+)?"),
        Series("7.2", r"\d+\.\d+\.\d+\+deb13(?:\.\d+)?"),
    )
}


def version_key(text: str) -> tuple[int, ...]:
    """The numbers of a package name, in order, for comparing releases."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


class Archive:
    """The package archive that this machine's apt is configured for, and the newer Debian in it."""

    def __init__(self, architecture: Architecture = X86_64) -> None:
        self.architecture = architecture
        name = "apt" if architecture is X86_64 else f"apt-{architecture.debian}"
        self.directory = cache_directory() / name
        self.sources = self.directory / "sources.list"
        self.options = [
            f"-oDir::Etc::sourcelist={self.sources}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State={self.directory}",
            # Nothing is installed: the packages are not for this machine.
            "-oDir::State::status=/dev/null",
            f"-oAPT::Architecture={architecture.debian}",
            f"-oAPT::Architectures={architecture.debian}",
            f"-oDir::Cache={self.directory}/cache",
            # Container images switch these off; without them every query parses the whole index.
            "-oDir::Cache::pkgcache=pkgcache.bin",
            "-oDir::Cache::srcpkgcache=srcpkgcache.bin",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=3",
            # The sandbox user of apt cannot write into a home directory.
            "-oAPT::Sandbox::User=root",
        ]

    def refresh(self) -> None:
        """Fetch the index of packages unless it is fresh.

        Raises TestbedUnavailableError when apt is missing or reaches nothing.
        """
        if shutil.which("apt-get") is None:
            raise TestbedUnavailableError("there is no apt-get", "run the kernel tests on Debian 12")
        with lock(self.directory / "lock"):
            stamp = self.directory / "updated"
            wanted = source_lines(configured_suites(), self.architecture)
            if (
                stamp.exists()
                and time.time() - stamp.stat().st_mtime < INDEX_MAX_AGE
                and self.sources.exists()
                and self.sources.read_text() == wanted
            ):
                return
            for name in ("lists/partial", "cache/archives/partial"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            self.sources.write_text(wanted)
            stamp.unlink(missing_ok=True)
            self._run("apt-get", "update", "-q", "--error-on=any")
            stamp.touch()

    def forget(self) -> None:
        """Fetch the index again next time: it named a package that has gone since."""
        (self.directory / "updated").unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """Names of all packages whose name starts with ``prefix``."""
        return self._run("apt-cache", "pkgnames", prefix).split()

    def fields(self, package: str) -> dict[str, str]:
        """The control fields of the candidate version of ``package``."""
        text = self._run("apt-cache", "show", "--no-all-versions", package)
        return dict(re.findall(r"^([A-Z][\w-]*): (.*)$", text, re.MULTILINE))

    def with_dependencies(self, packages: Sequence[str]) -> list[str]:
        """Names of ``packages`` and of all that they need."""
        text = self._run("apt-get", "install", "-s", "-q", "--no-install-recommends", *packages)
        return re.findall(r"^Inst (\S+)", text, re.MULTILINE)

    def download(self, packages: Sequence[str], directory: Path) -> list[Path]:
        """Download ``packages`` (``name`` or ``name=version``; apt verifies the checksums) into ``directory``."""
        directory.mkdir(parents=True)
        try:
            self._run("apt-get", "download", "-q", *packages, directory=directory)
        except TestbedUnavailableError:
            self.forget()
            raise
        return sorted(directory.glob("*.deb"))

    def unpack(self, packages: Sequence[str], destination: Path) -> None:
        """Download ``packages`` and unpack them into ``destination``."""
        downloads = destination / "debs"
        for deb in self.download(packages, downloads):
            subprocess.run(["dpkg-deb", "-x", deb, destination], check=True)
        shutil.rmtree(downloads)

    def _run(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        done = subprocess.run(
            [program, *self.options, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
            reason = f"{program} {arguments[0]} failed: {errors[0] if errors else done.stderr.strip()}"
            raise TestbedUnavailableError(reason, APT_CURE)
        return done.stdout


def configured_suites() -> list[tuple[str, str]]:
    """(base address, suite) of every source of the machine, as apt itself understands its files."""
    text = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = (line.split() for line in text.splitlines())
    return sorted({(row[0], row[1]) for row in rows if len(row) == 3 and row[2] == "main"})


def source_lines(suites: Sequence[tuple[str, str]], architecture: Architecture) -> str:
    """A one-line-style source list: the machine's bookworm suites, and those of NEWER beside them.

    For other architectures bookworm and its backports, for not every mirror has the rest of them.
    Raises TestbedUnavailableError when no bookworm is configured.
    """
    bookworm = [
        (base, suite) for base, suite in suites if re.fullmatch(r"bookworm(-updates|-security)?", suite)
    ]
    bases = [base for base, suite in bookworm if suite == "bookworm"]
    if not bases:
        raise TestbedUnavailableError("apt has no source for the suite bookworm", APT_CURE)
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    chosen = [*bookworm, *((bases[0], suite) for suite in NEWER)]
    if not architecture.native:
        chosen = [(bases[0], suite) for suite in ("bookworm", "bookworm-backports")]
    return "".join(
        f"deb [arch={architecture.debian}{signed}] {base} {suite} main\n" for base, suite in chosen
    )
