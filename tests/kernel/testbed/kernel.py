"""A kernel ready to boot: uncompressed image, modules, and an initial RAM file system."""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tests.kernel.testbed import cpio
from tests.kernel.testbed.architecture import X86_64, Architecture
from tests.kernel.testbed.cache import cache_directory, lock, new_directory
from tests.kernel.testbed.debian import SERIES, Archive, Series
from tests.kernel.testbed.errors import TestbedUnavailableError
from tests.kernel.testbed.root import prepare_root

LAYOUT = "3"  # raise it when what is built below changes, so that old caches are left alone
INIT = Path(__file__).with_name("init.sh")

# What the initial RAM file system needs to reach the host's root file system. An IOMMU that needs a driver comes
# first, or devices are bound to theirs without it.
BOOT_MODULES = ("virtio_iommu", "virtio_pci", "virtio_ccw", "9pnet_virtio", "9p", "overlay", "virtio_console")


@dataclass(frozen=True)
class Kernel:
    """What the emulator is given. Everything lies under ``directory`` in the cache.

    ``root`` is the directory of this machine that its guests have as their root file system.
    """

    directory: Path
    release: str
    root: Path = Path("/")

    @property
    def image(self) -> Path:
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def modules(self) -> Path:
        """The directory that belongs at /lib/modules/<release>."""
        return self.directory / "lib/modules" / self.release


def prepare_series(name: str, architecture: Architecture = X86_64) -> Kernel:
    """The newest kernel of a series (``6.1``, ``7.2``), from the cache or from the archive.

    Raises TestbedUnavailableError.
    """
    series = SERIES[name]
    with lock(cache_directory() / f"kernel-{name}-{architecture.debian}.lock"):
        try:
            kernel = _newest(series, Archive(architecture))
        except TestbedUnavailableError:
            cached = _newest_cached(series, architecture)
            if cached is None:
                raise
            kernel = cached
    return replace(kernel, root=prepare_root(architecture))


def _newest(series: Series, archive: Archive) -> Kernel:
    archive.refresh()
    flavour = archive.architecture.flavour
    package = series.choose(archive.names("linux-image-"), flavour)
    if package is None:
        raise TestbedUnavailableError(
            f"the archive has no kernel of the series {series.name} or later any more",
            "change the series in tests/kernel/testbed/debian.py",
        )
    release = series.release(package, flavour)
    fields = archive.fields(package)
    directory = cache_directory() / "kernels" / f"{release}_{fields['Version']}_{LAYOUT}"
    kernel = Kernel(directory, release)
    if not directory.exists():
        parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
        packages = [package, *(part for part in parts if part in fields["Depends"])]
        with new_directory(directory) as temporary:
            archive.unpack([*packages, "busybox-static"], temporary / "root")
            _build(Kernel(temporary, release), temporary / "root")
    return kernel


def _newest_cached(series: Series, architecture: Architecture) -> Kernel | None:
    """The kernel to use when the archive cannot be reached."""
    found = (cache_directory() / "kernels").glob(f"*_{LAYOUT}")
    by_package = {f"linux-image-{path.name.split('_')[0]}": path for path in found}
    package = series.choose(list(by_package), architecture.flavour)
    return Kernel(by_package[package], series.release(package, architecture.flavour)) if package else None


def _build(kernel: Kernel, root: Path) -> None:
    for place in (root / "lib", root / "usr/lib"):
        if (place / "modules" / kernel.release / "kernel").exists():
            kernel.modules.parent.mkdir(parents=True)
            shutil.move(place / "modules" / kernel.release, kernel.modules)
    names = (f"vmlinuz-{kernel.release}", f"vmlinux-{kernel.release}")
    places = (kernel.modules / "vmlinuz", *(root / "boot" / name for name in names))
    vmlinuz = next(path for path in places if path.exists())
    kernel.image.write_bytes(uncompressed(vmlinuz.read_bytes()))
    _uncompress_modules(kernel.modules)
    index_modules(kernel)
    kernel.initrd.write_bytes(_initrd(kernel, next(root.rglob("bin/busybox"))))
    shutil.rmtree(root)


def index_modules(kernel: Kernel) -> None:
    """Write what modprobe reads, anew."""
    subprocess.run(["depmod", "-b", kernel.directory, kernel.release], check=True)


def _uncompress_modules(directory: Path) -> None:
    """Unpacking a module is quick here and slow in an emulated machine."""
    packed = [str(path) for path in directory.rglob("*.ko.xz")]
    if packed:
        workers = str(os.cpu_count() or 1)
        subprocess.run(
            ["xargs", "-0", "-P", workers, "-n", "100", "xz", "-d"],
            input="\0".join(packed).encode(),
            check=True,
        )


def uncompressed(vmlinuz: bytes) -> bytes:
    """The ELF kernel inside a PC's bzImage, which boots faster; ``vmlinuz`` itself if its packing is unknown.

    Linux, Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, the magic number at 0x202, payload_offset and
    payload_length at 0x248.
    """
    if vmlinuz[0x202:0x206] != b"HdrS":
        return vmlinuz
    setup_sectors = vmlinuz[0x1F1] or 4
    offset, length = struct.unpack_from("<II", vmlinuz, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = vmlinuz[start : start + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd") and shutil.which("zstd"):
        # The kernel's build appends the length to the stream, at which zstd stops with an error after the data.
        done = subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True, check=False)
        if done.returncode == 0:
            return done.stdout
    return vmlinuz


def _initrd(kernel: Kernel, busybox: Path) -> bytes:
    files = {"init": INIT.read_bytes(), "bin/busybox": busybox.read_bytes()}
    order = _load_order(kernel.modules / "modules.dep")
    for number, module in enumerate(order):
        files[f"modules/{number:02}-{Path(module).name}"] = (kernel.modules / module).read_bytes()
    return cpio.archive(files, executable=frozenset({"init", "bin/busybox"}))


def _load_order(modules_dep: Path) -> list[str]:
    """Paths of BOOT_MODULES and all they depend on, each after what it needs."""
    needs: dict[str, list[str]] = {}
    for line in modules_dep.read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).stem.replace("-", "_"): path for path in needs}
    order: list[str] = []
    for name in BOOT_MODULES:
        # depmod lists what is needed last first; what is built in has no file.
        file = by_name.get(name)
        if file is not None:
            order += [need for need in [*reversed(needs[file]), file] if need not in order]
    return order
