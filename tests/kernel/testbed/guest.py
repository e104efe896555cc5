"""One virtual machine: start it, talk to it, end it."""

from __future__ import annotations

import json
import os
import selectors
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.testbed import cpio, hardware
from tests.kernel.testbed.cache import cache_directory, lock
from tests.kernel.testbed.errors import TestbedUnavailableError
from tests.kernel.testbed.kernel import Kernel

REPOSITORY = Path(__file__).resolve().parents[3]
CONSOLE_TAIL = 60  # lines shown when a guest fails
BOOT_SECONDS = 400.0  # ten times what it takes where nothing else runs

# Virtio-serial ports of the guest, by name: /dev/virtio-ports/<name> with udev, found by sysfs without.
RESULTS = "testbed.results"
OUTPUT = "testbed.output"
QMP = "testbed.qmp"


@dataclass(frozen=True)
class Job:
    """What a guest does: run ``command`` in the repository with ``environment``, then power off.

    ``files`` are put under /run/testbed in the guest.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes]


class GuestError(Exception):
    """The guest died, hung, or never came up. The message shows the tail of its console."""


class GuestDeadlineError(GuestError):
    """The guest was silent for too long."""


class Guest:
    """A running virtual machine. Lines that the guest writes to its results port come from ``line``."""

    def __init__(
        self, machine: hardware.Machine, kernel: Kernel, job: Job, output: Path | None = None
    ) -> None:
        self.machine = machine
        architecture = machine.board.architecture
        qemu = shutil.which(architecture.qemu)
        if qemu is None:
            raise TestbedUnavailableError(
                f"there is no {architecture.qemu}", f"install the package {architecture.package}"
            )
        # Short, because the path of a Unix socket is at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="vfioctl-guest-"))
        self.console = self.directory / "console.log"
        self.output = output or self.directory / "output.log"
        initrd = self.directory / "initrd"
        initrd.write_bytes(
            cpio.archive(machine.tables) + kernel.initrd.read_bytes() + _job_archive(machine, kernel, job)
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.directory / "results"))
            listener.listen(1)
            listener.settimeout(BOOT_SECONDS)
            arguments = hardware.arguments(
                machine,
                image=kernel.image,
                initrd=initrd,
                console=self.console,
                disk=disk_image(),
                share=Path("/"),
            )
            with (self.directory / "qemu.log").open("wb") as log:
                self.process = subprocess.Popen(
                    [qemu, *arguments, *self._channels()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(1)
        while True:
            try:
                self.results, _ = listener.accept()
                break
            except TimeoutError:
                if self.process.poll() is not None:
                    text = (self.directory / "qemu.log").read_text(errors="replace")
                    self.close()
                    raise GuestError(
                        f"{self.machine.board.architecture.qemu} did not start:\n{text}"
                    ) from None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.results, selectors.EVENT_READ)
        self._pending = b""

    def _channels(self) -> list[str]:
        directory = self.directory
        ports = {
            RESULTS: f"socket,id={RESULTS},path={directory}/results",
            OUTPUT: f"file,id={OUTPUT},path={self.output}",
            # QEMU's own monitor, connected to itself: the guest speaks QMP without a helper on the host.
            QMP: f"socket,id={QMP},path={directory}/qmp",
        }
        arguments = ["-chardev", f"socket,id=monitor,path={directory}/qmp,server=on,wait=off"]
        arguments += ["-mon", "chardev=monitor,mode=control"]
        arguments += ["-device", f"{self.machine.board.serial},id=testbed-serial"]
        for name, chardev in ports.items():
            arguments += ["-chardev", chardev, "-device", f"virtserialport,chardev={name},name={name}"]
        return arguments

    def line(self, deadline: float) -> bytes | None:
        """The next line of the results port, or None at its end; GuestError when ``deadline`` passes.

        ``deadline`` is in seconds of ``time.monotonic``.
        """
        while b"\n" not in self._pending:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise GuestDeadlineError("the guest did not answer in time")
            data = self.results.recv(65536)
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def describe(self) -> str:
        """The ends of the emulator's messages, of the console and of the output of the guest's command."""
        logs = {"emulator": self.directory / "qemu.log", "console": self.console, "output": self.output}
        return "\n".join(_tail(path, what) for what, path in logs.items())

    def close(self) -> None:
        """End the machine and remove its files."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if hasattr(self, "results"):
            self._selector.close()
            self.results.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def disk_image() -> Path:
    """A small ext2 file system which every guest mounts at /mnt/disk (what is written there is thrown away)."""
    path = cache_directory() / "disk.ext2"
    with lock(path.with_suffix(".lock")):
        if not path.exists():
            temporary = path.with_suffix(".new")
            with temporary.open("wb") as handle:
                handle.truncate(8 << 20)
            mke2fs = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
            if mke2fs is None:
                raise TestbedUnavailableError("there is no mke2fs", "install the package e2fsprogs")
            subprocess.run([mke2fs, "-q", "-t", "ext2", "-L", "testbed", temporary], check=True)
            temporary.rename(path)
    return path


def _job_archive(machine: hardware.Machine, kernel: Kernel, job: Job) -> bytes:
    """The part of the initial RAM file system that belongs to this boot. See init.sh for who reads it."""
    seen = "/host"
    binds = {str(kernel.modules): f"/lib/modules/{kernel.release}"}
    if machine.board.architecture.native:
        seen = "/root"  # the same files, but for those that can be written
    else:
        binds |= {path: path for path in job.environment["PYTHONPATH"].split(":")}
    place = "mkdir -p /root/mnt/disk\n" + "".join(
        f"mkdir -p {shlex.quote('/root' + place)}\n"
        f"mount --bind {shlex.quote(seen + path)} {shlex.quote('/root' + place)}\n"
        for path, place in binds.items()
    )
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TMPDIR": "/run/tmp",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **job.environment,
    }
    if "disk" in machine.roles():
        environment["TESTBED_DISK"] = ":".join(machine.roles()["disk"])
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    script = (
        f"{exports}cd {shlex.quote(str(REPOSITORY))}\n"
        f"export TESTBED_COMMAND={shlex.quote(shlex.join(job.command))}\n"
        f". {shlex.quote(str(Path(__file__).with_name('start.sh')))}\n"
    )
    facts = {"machine": machine.name, "roles": machine.roles()}
    files = {
        "root": str(kernel.root).encode(),
        "place": place.encode(),
        "job": script.encode(),
        "machine.json": json.dumps(facts).encode(),
        **job.files,
    }
    return cpio.archive({f"testbed/{name}": data for name, data in files.items()})


def _tail(path: Path, what: str) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = text.replace("\r", "").splitlines()[-CONSOLE_TAIL:]
    return f"--- last lines of the guest's {what} ---\n" + "\n".join(lines)
