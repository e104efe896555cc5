"""The processor architectures of the test machines: what Debian and QEMU call them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """``debian`` is the architecture of packages, ``flavour`` the end of a kernel's release there."""

    debian: str
    flavour: str
    qemu: str
    package: str  # the host's package with the emulator
    kernel_options: str  # the console and what makes an emulated boot quick
    native: bool = False  # the guest runs the host's own programs


X86_64 = Architecture(
    "amd64",
    "amd64",
    "qemu-system-x86_64",
    "qemu-system-x86",
    "console=ttyS0 nokaslr no_timer_check tsc=reliable random.trust_cpu=on",
    native=True,
)
ARM64 = Architecture("arm64", "arm64", "qemu-system-aarch64", "qemu-system-arm", "console=ttyAMA0 nokaslr")
PPC64LE = Architecture("ppc64el", "powerpc64le", "qemu-system-ppc64", "qemu-system-ppc", "console=hvc0")
S390X = Architecture("s390x", "s390x", "qemu-system-s390x", "qemu-system-misc", "console=ttysclp0 nokaslr")
