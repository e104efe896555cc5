"""Debian's kernels with VFIO options that Debian leaves off: iommufd, VFIO cdevs, no-IOMMU groups, sample mdevs.

The kernel itself stays Debian's. ``drivers/vfio`` and ``drivers/iommu/iommufd`` of its source package are built as
modules against its headers, all of them together, because the options change ``struct vfio_device``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.kernel.testbed.architecture import X86_64, Architecture
from tests.kernel.testbed.cache import cache_directory, lock, new_directory
from tests.kernel.testbed.debian import SERIES, Archive
from tests.kernel.testbed.errors import TestbedUnavailableError
from tests.kernel.testbed.kernel import Kernel, index_modules, prepare_series
from tests.kernel.testbed.toolchain import Toolchain, prepare_toolchain

RECIPE = "1"  # raise it when what is built below changes, so that old caches are left alone
LOG_TAIL = 15  # lines

# Of the source package's 90000 files.
WANTED = ("drivers/vfio", "drivers/iommu", "lib/interval_tree.c", "samples/vfio-mdev")
BUILT = ("drivers/iommu/iommufd", "drivers/vfio", "samples/vfio-mdev")

# Kernel configuration: "m", "y", or "" for off.
COMMON = {
    # These two are for the kernel's own image if it is built with iommufd; here they are modules.
    "IOMMUFD_DRIVER": "m",
    "IOMMUFD_DRIVER_CORE": "m",
    "IOMMUFD": "m",
    "INTERVAL_TREE_SPAN_ITER": "y",
    "VFIO_DEVICE_CDEV": "y",
    "SAMPLE_VFIO_MDEV_MTTY": "m",
    "SAMPLE_VFIO_MDEV_MDPY": "m",
    "SAMPLE_VFIO_MDEV_MBOCHS": "m",
}
# Quicker, and pahole is not needed; not for the compiler, for struct module depends on it.
MAKE_ONLY = {"DEBUG_INFO": "", "DEBUG_INFO_BTF_MODULES": ""}
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "iommufd": {**COMMON, "VFIO_NOIOMMU": "y"},
    # iommufd provides /dev/vfio/vfio; the container of VFIO itself and its type 1 back end are not there.
    "compat": {**COMMON, "IOMMUFD_VFIO_CONTAINER": "y", "VFIO_CONTAINER": "", "VFIO_IOMMU_TYPE1": ""},
}

#: What a test can ask for: a series, or a series and a variant of its modules.
KERNELS = (*SERIES, *(f"{series}-{variant}" for series in ("6.12", "7.2") for variant in VARIANTS))


def prepare(name: str, architecture: Architecture = X86_64) -> Kernel:
    """The kernel ``name`` of KERNELS, from the cache or made. Raises TestbedUnavailableError."""
    series, _, variant = name.partition("-")
    stock = prepare_series(series, architecture)
    if not variant:
        return stock
    # The stock kernel's release, version and layout, and what was done to it.
    directory = cache_directory() / "rebuilt" / f"{stock.directory.name}_{variant}_{RECIPE}"
    with lock(cache_directory() / f"kernel-{name}.lock"):
        if not directory.exists():
            with new_directory(directory) as temporary:
                shutil.copytree(
                    stock.directory, temporary, symlinks=True, copy_function=os.link, dirs_exist_ok=True
                )
                _replace_modules(Kernel(temporary, stock.release), VARIANTS[variant])
    return replace(stock, directory=directory)


def _replace_modules(kernel: Kernel, options: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="vfioctl-build-") as place:
        build = Build(Path(place), kernel.release)
        build.run(options)
        shutil.rmtree(kernel.modules / "kernel/drivers/vfio")
        for module in build.source.rglob("*.ko"):
            destination = kernel.modules / "kernel" / module.relative_to(build.source)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, destination)
    index_modules(kernel)


@dataclass(frozen=True)
class Build:
    """A build of modules for the kernel ``release`` in an empty directory."""

    place: Path
    release: str

    @property
    def source(self) -> Path:
        return self.place / "source"

    @property
    def headers(self) -> Path:
        return self.place / "root/usr/src" / f"linux-headers-{self.release}"

    def run(self, options: Mapping[str, str]) -> None:
        """Leave the modules in ``source``. Raises TestbedUnavailableError."""
        if shutil.which("make") is None:
            raise TestbedUnavailableError("there is no make", "install the package make")
        archive = Archive()
        toolchain = prepare_toolchain(archive)
        self._unpack(archive)
        self._relocate(toolchain)
        self._configure(options)
        self._arrange()
        self._make(toolchain)

    def _unpack(self, archive: Archive) -> None:
        headers = f"linux-headers-{self.release}"
        fields = archive.fields(headers)
        needed = re.findall(r"linux-(?:headers|kbuild)-[^ ,]+", fields["Depends"])
        archive.unpack([headers, *needed], self.place / "root")
        shutil.copytree(_source(archive, self.release, fields["Version"]), self.source)

    def _relocate(self, toolchain: Toolchain) -> None:
        """Have the headers, which are made for /usr, work where they are."""
        usr = self.place / "root/usr"
        for directory in usr.glob("lib/linux-kbuild-*"):
            toolchain.adopt(directory, directory)
        (common,) = usr.glob("src/linux-headers-*-common")
        (self.headers / "Makefile").write_text(f"KBUILD_OUTPUT={self.headers}\ninclude {common}/Makefile\n")

    def _configure(self, options: Mapping[str, str]) -> None:
        """Add ``options`` to both forms of the kernel's configuration: make's and the compiler's."""
        with (self.headers / "include/config/auto.conf").open("a") as for_make:
            for_make.writelines(
                f"CONFIG_{name}={value}\n" for name, value in {**options, **MAKE_ONLY}.items()
            )
        defined = {"y": "#define CONFIG_{} 1\n", "m": "#define CONFIG_{}_MODULE 1\n", "": ""}
        with (self.headers / "include/generated/autoconf.h").open("a") as for_compiler:
            for name, value in options.items():
                for_compiler.write(f"#undef CONFIG_{name}\n#undef CONFIG_{name}_MODULE\n")
                for_compiler.write(defined[value].format(name))

    def _arrange(self) -> None:
        """One build of everything, with what belongs into the kernel's image built into modules instead."""
        (self.source / "Kbuild").write_text(f"obj-m += {' '.join(f'{path}/' for path in BUILT)}\n")
        iommufd = self.source / "drivers/iommu/iommufd"
        # The kernel has interval trees, but not their span iterator.
        shutil.copy(self.source / "lib/interval_tree.c", iommufd)
        with (iommufd / "Makefile").open("a") as makefile:
            makefile.write("iommufd-y += interval_tree.o\nCFLAGS_interval_tree.o := -D__DISABLE_EXPORTS\n")
        with (iommufd / "iova_bitmap.c").open("a") as bitmap:
            bitmap.write('#include <linux/module.h>\nMODULE_LICENSE("GPL");\n')

    def _make(self, toolchain: Toolchain) -> None:
        done = subprocess.run(
            ["make", "-C", self.headers, f"M={self.source}", f"-j{os.cpu_count() or 1}", "modules"],
            env={"PATH": f"{toolchain.programs}:{os.environ['PATH']}", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-LOG_TAIL:])
            raise TestbedUnavailableError(
                f"the modules for {self.release} cannot be built:\n{tail}\n",
                "see whether the source has changed; tests/kernel/testbed/rebuild.py says what is built",
            )


def _source(archive: Archive, release: str, version: str) -> Path:
    """What is WANTED of a kernel's source, from the cache or from the archive. Raises TestbedUnavailableError."""
    name = "linux-source-" + ".".join(release.split(".")[:2])
    directory = cache_directory() / "sources" / f"{name}_{version}_{RECIPE}"
    with lock(cache_directory() / f"{name}.lock"):
        if not directory.exists():
            with new_directory(directory) as temporary, tempfile.TemporaryDirectory() as downloads:
                (package,) = archive.download([f"{name}={version}"], Path(downloads, "package"))
                wanted = [f"{name}/{path}" for path in WANTED]
                _pipe(
                    ["dpkg-deb", "--fsys-tarfile", str(package)],
                    ["tar", "xO", f"./usr/src/{name}.tar.xz"],
                    ["xz", "-dc", "-T0"],
                    ["tar", "x", "-C", str(temporary), "--strip-components=1", *wanted],
                )
    return directory


def _pipe(*stages: list[str]) -> None:
    """Run a pipeline; CalledProcessError when a part of it fails."""
    processes: list[subprocess.Popen[bytes]] = []
    for stage in stages:
        stdin = processes[-1].stdout if processes else subprocess.DEVNULL
        stdout = None if stage is stages[-1] else subprocess.PIPE
        processes.append(subprocess.Popen(stage, stdin=stdin, stdout=stdout))
    for process in processes[:-1]:
        if process.stdout is not None:
            process.stdout.close()
    for process in reversed(processes):
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args)
