"""Kernel modules, through kmod's modprobe."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable

from vfioctl.errors import DeadlinePassed, KernelRefusal
from vfioctl.host.bounded import place_of, postponed
from vfioctl.host.files import read
from vfioctl.host.recorded import recorded
from vfioctl.model import ModuleAlias

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def aliases(root: str, release: str, prefix: str) -> list[ModuleAlias]:
    """Every alias that begins with ``prefix``: of modules (depmod's modules.alias), and of what is
    built in (modules.builtin.modinfo: records ``MODULE.alias=PATTERN`` that end with NUL)."""
    top = os.path.join(root, "lib/modules", release)
    found = []
    for line in (read(f"{top}/modules.alias") or "").split("\n"):
        if line.startswith(f"alias {prefix}"):
            _, pattern, module = line.split()
            found.append(ModuleAlias(pattern, module))
    for record in (read(f"{top}/modules.builtin.modinfo") or "").split("\0"):
        module, key, pattern = record.partition(f".alias={prefix}")
        if key:
            found.append(ModuleAlias(prefix + pattern, module))
    return found


def states(root: str, release: str, wanted: Iterable[str]) -> dict[str, str | None]:
    """Of each module (with _ for -): ``built-in``, ``loaded``, ``available`` on the disk, or ``missing``; None for one
    that is not in use where the lists of modules may not be read, or are not in a tree of files (``root``)."""
    top = os.path.join(root, "lib/modules", release)
    try:
        lists = [read(f"{top}/{name}") for name in ("modules.builtin", "modules.dep")]
    except PermissionError:
        lists = []
    if (
        root != "/" and lists == [None, None] and recorded(root) is None
    ):  # a snapshot has them where its host had
        lists = []
    built_in, available = ({_module(line) for line in (text or "").split("\n")} for text in lists or ("", ""))

    def state(name: str) -> str | None:
        # A module that is built in has a directory too when it has parameters, but no initstate.
        home = os.path.join(root, "sys/module", name)
        if os.path.exists(f"{home}/initstate"):
            return "loaded"
        if name in built_in or os.path.isdir(home):
            return "built-in"
        return "available" if name in available else "missing" if lists else None

    return {name: state(name) for name in wanted}


def _module(line: str) -> str:
    """The module of a line of modules.dep or modules.builtin: ``kernel/drivers/vfio/pci/vfio-pci.ko.xz: ...``."""
    return line.partition(":")[0].rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def claimants(modalias: str, timeout: float) -> list[str]:
    """The modules that claim a device by its modalias; none for a driver that is built in and has no module."""
    program = shutil.which("modprobe", path=_PATH)
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--resolve-alias", modalias],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlinePassed(
            f"modprobe --resolve-alias has not ended within {timeout:g} s", subject=modalias
        ) from error
    return done.stdout.split()


def modprobe(name: str, timeout: float) -> None:
    """Loads a module by its name or a modalias. Raises KernelRefusal with modprobe's own words, or DeadlinePassed."""
    program = shutil.which("modprobe", path=_PATH)
    if program is None:
        raise KernelRefusal(
            f"module {name} cannot be loaded: there is no modprobe",
            hint="install kmod, or load the module another way",
            subject=name,
            code="no-module",
        )
    # A signal waits until the module is there or not: otherwise its driver could take devices after the way back.
    with postponed() as mask:
        child = subprocess.Popen(
            [program, "--", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # a Ctrl-C on the terminal is for vfioctl, which decides what happens next
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
        try:
            _, said = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            # Not killed: a module's init function that hangs cannot be, and waiting for it would hang us too.
            place = place_of(child.pid)
            raise DeadlinePassed(
                f"modprobe {name} has not ended within {timeout:g} s: {place}",
                hint="the module's init function hangs, or modprobe waits for something else: look in the kernel "
                "log; when it has ended: vfioctl recover",
                subject=name,
                details={"kernel": place._asdict()},
            ) from error
    if child.returncode != 0:
        words = said.strip().splitlines() or [f"modprobe ended with {child.returncode}"]
        raise KernelRefusal(
            f"module {name} cannot be loaded: {words[-1]}",
            hint=f"modinfo {name} says whether this kernel has it, modprobe --showconfig | grep "
            f"{name.replace('-', '.')} whether /etc/modprobe.d replaces or forbids it",
            subject=name,
            code="no-module",
        )
