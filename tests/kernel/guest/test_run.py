"""run on the real kernel: what the command may and may not, every way to end, and that everything is given back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import PCI, driver_of, group_of, modprobe, override_of, probe, unbind
from tests.kernel.testbed.command import Running
from tests.kernel.testbed.qmp import Qmp
from vfioctl.host.acl import read_acl

pytestmark = pytest.mark.one_kernel("7.2")

NOBODY = 65534
USER = ("--user", str(NOBODY), "--")
RUNS = Path("/run/vfioctl/runs")
#: Where the command, which is nobody, and the test tell each other how far they are.
EXCHANGE = Path("/run/exchange")
READY, GO = EXCHANGE / "ready", EXCHANGE / "go"
WAIT = f"touch {READY}; while [ ! -e {GO} ]; do sleep 0.05; done;"
#: /bin/sh itself waits, so that signals have one addressee.
SLEEP = f"touch {READY}; exec sleep 60"


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def started(running: Running) -> Running:
    until(lambda: READY.exists() or not running.alive(), "the command has not started")
    assert READY.exists(), running.wait()
    return running


@pytest.fixture(autouse=True)
def exchange() -> Iterator[None]:
    EXCHANGE.mkdir(exist_ok=True)
    EXCHANGE.chmod(0o777)
    yield
    for name in (READY, GO):
        name.unlink(missing_ok=True)


@pytest.fixture
def edu(roles: Mapping[str, str]) -> Iterator[str]:
    """A device without a driver, which it has to be afterwards too."""
    address = roles["edu"]
    unbind(address)
    yield address
    assert_free(address)


def assert_free(address: str) -> None:
    assert (driver_of(address), override_of(address)) == (None, None)
    assert not RUNS.exists() or list(RUNS.iterdir()) == []
    assert not Path("/run/vfioctl/journal.json").exists()


def sh(script: str) -> tuple[str, ...]:
    return (*USER, "sh", "-c", script)


def test_the_command_maps_memory_as_an_unprivileged_user(vfioctl: Vfioctl, edu: str) -> None:
    script = "exec vfioctl map $VFIOCTL_GROUPS --size 16M -J"
    result = vfioctl("run", edu, *sh(script), memlock=65536, deadline=120)
    assert result.status == 0, result.stderr
    assert result.json["mappings"][0]["size"] == 16 << 20
    assert_free(edu)
    limited = vfioctl("run", edu, "--memlock", "64K", *sh(script), deadline=120)
    assert limited.status not in (0, 9) and limited.stdout == ""
    assert json.loads(limited.stderr.splitlines()[-1])["error"]["code"] == "memlock"


def test_what_the_command_is(vfioctl: Vfioctl, edu: str) -> None:
    result = vfioctl("run", edu, *USER, "cat", "/proc/self/status", "/proc/self/limits")
    assert result.status == 0, result.stderr
    lines = dict(line.split(":", 1) for line in result.stdout.splitlines() if ":" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "SigBlk", "SigIgn"):
        assert int(lines[name], 16) == 0, name
    assert lines["NoNewPrivs"].strip() == "1"
    assert lines["Uid"].split() == lines["Gid"].split() == [str(NOBODY)] * 4
    assert lines["Groups"].split() == [str(NOBODY)]
    (limit,) = [line for line in result.stdout.splitlines() if line.startswith("Max locked memory")]
    assert limit.split()[3:5] == ["unlimited", "unlimited"]
    less = vfioctl("run", edu, "--memlock", "2M", *sh("ulimit -l; ls /proc/self/fd; pwd; id -u"), cwd="/tmp")
    assert less.stdout.split() == ["2048", "0", "1", "2", "3", "/tmp", str(NOBODY)]  # 3: ls's own


def test_what_the_command_finds(vfioctl: Vfioctl, edu: str) -> None:
    script = "for n in $VFIOCTL_NODES; do test -w $n || exit 1; done; env"
    result = vfioctl("run", edu, *sh(script), env={"KEPT": "1"})
    assert result.status == 0, result.stderr
    found = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    group = group_of(edu)
    assert (found["VFIOCTL_DEVICES"], found["VFIOCTL_GROUPS"]) == (edu, str(group))
    assert found["VFIOCTL_NODES"].split()[0] == f"/dev/vfio/{group}"
    assert (found["USER"], found["LOGNAME"], found["KEPT"]) == ("nobody", "nobody", "1")


def test_stdin_is_the_commands(vfioctl: Vfioctl, edu: str) -> None:
    assert vfioctl("run", edu, *USER, "cat", stdin="through\n").stdout == "through\n"


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_statuses(vfioctl: Vfioctl, edu: str, script: str, status: int) -> None:
    result = vfioctl("run", edu, *sh(script))
    assert (result.status, result.stdout, result.stderr) == (status, "", "")


def test_what_cannot_be_executed(vfioctl: Vfioctl, edu: str) -> None:
    for command, status in (("no-such-command", 127), ("/etc/passwd", 126), ("/etc", 126)):
        result = vfioctl("-v", "run", edu, *USER, command)
        assert result.status == status and command in result.stderr
        assert "+ echo" not in result.stderr, "something was changed for it"
    garbage = EXCHANGE / "garbage"
    garbage.write_bytes(b"\0garbage")
    garbage.chmod(0o755)
    result = vfioctl("run", edu, *USER, str(garbage))  # only execve tells
    assert result.status == 126 and "Exec format error" in result.stderr
    garbage.chmod(0o700)  # root's alone
    assert vfioctl("run", edu, *USER, str(garbage)).status == 126


def test_who_it_runs_as(vfioctl: Vfioctl, edu: str) -> None:
    refused = vfioctl("run", edu, "--", "id", "-u")
    assert refused.status == 2 and "--user" in refused.stderr
    assert driver_of(edu) is None
    assert vfioctl("run", edu, "--user", "no-such-user", "--", "true").status == 3
    assert vfioctl("run", edu, "--", "id", "-u", env={"SUDO_UID": str(NOBODY)}).stdout == f"{NOBODY}\n"
    root = vfioctl("run", edu, "--user", "root", "--", "sh", "-c", "id -u; grep CapEff /proc/self/status")
    assert root.stdout.split() == ["0", "CapEff:", "0" * 16]  # by name, and without its privileges
    assert vfioctl("run", edu, "--", "true", user=Vfioctl.unprivileged).status == 4


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_signal_to_vfioctl_goes_on_to_the_command(vfioctl: Vfioctl, edu: str, name: str) -> None:
    number = signal.Signals[name]
    running = started(vfioctl.start("run", edu, *sh(SLEEP)))
    assert driver_of(edu) == "vfio-pci"
    os.kill(running.pid, number)
    assert running.wait().status == 128 + number


def test_a_command_that_outlives_a_signal(vfioctl: Vfioctl, edu: str) -> None:
    running = started(vfioctl.start("run", edu, *sh(f"trap 'exit 6' TERM; {WAIT}")))
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait().status == 6


def test_ctrl_c_reaches_the_command_once(vfioctl: Vfioctl, edu: str) -> None:
    script = f"test -t 0 && test -t 1 && trap 'echo caught; exit 7' INT; {WAIT}"
    running = started(vfioctl.start("run", edu, *sh(script), tty=True))
    (terminal,) = running._outputs
    os.write(terminal, b"\x03")
    result = running.wait()
    assert result.status == 7
    assert result.stdout.count("caught") == 1


def test_vfioctl_is_killed(vfioctl: Vfioctl, edu: str) -> None:
    running = started(vfioctl.start("run", edu, *sh(f"echo $$ > {EXCHANGE}/pid; {SLEEP}")))
    command = int((EXCHANGE / "pid").read_text())
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{command}").exists(), "the command has not got SIGTERM")
    assert running.wait().status == -signal.SIGKILL
    assert driver_of(edu) == "vfio-pci"
    refused = vfioctl("bind", edu, "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "unfinished-change")
    result = vfioctl("recover", "-J")
    assert result.status == 0, result.stderr
    assert (result.json["command"], result.json["devices"]) == ("run", [f"pci/{edu}"])


def test_it_is_kept_from_others_meanwhile(vfioctl: Vfioctl, edu: str) -> None:
    running = started(vfioctl.start("run", edu, *sh(WAIT)))
    for arguments in (("bind", edu), ("unbind", edu), ("permit", group_of(edu), "--user", "1")):
        refused = vfioctl(*arguments, "-J")
        assert (refused.status, refused.json_error["code"]) == (5, "lent"), refused.stderr
        assert f"process {running.pid}" in refused.json_error["message"]
    alone = vfioctl("recover")
    assert alone.status == 0 and "left alone" in alone.stderr
    assert driver_of(edu) == "vfio-pci" and running.alive()
    GO.touch()
    assert running.wait().status == 0


def test_a_daemon_that_keeps_the_device(vfioctl: Vfioctl, edu: str) -> None:
    open_it = "exec 9<>/dev/vfio/$VFIOCTL_GROUPS;"
    result = vfioctl("run", edu, *sh(f"{open_it} sleep 6 & exit 5".replace("; sleep", "\nsleep")))
    assert result.status == 5 and "waiting until the devices are let go" in result.stderr
    assert "sleep (process " in result.stderr
    assert_free(edu)
    script = f"{open_it}\nsleep 60 & echo $! > {EXCHANGE}/pid; exit 5"
    result = vfioctl("--timeout", "4", "run", edu, *sh(script))
    daemon = int((EXCHANGE / "pid").read_text())
    try:
        assert result.status == 9, result.stderr
        assert f"sleep (process {daemon}, user nobody" in result.stderr
        assert "ended with status 5" in result.stderr
        assert vfioctl("--timeout", "3", "recover").status == 9
        assert driver_of(edu) == "vfio-pci"
    finally:
        os.kill(daemon, signal.SIGKILL)
    assert vfioctl("recover").status == 0


def test_a_device_that_is_unplugged_meanwhile(
    vfioctl: Vfioctl, edu: str, roles: Mapping[str, str], qmp: Qmp
) -> None:
    qmp.device_add("e1000e", "visitor", "hotplug_port", romfile="")
    bus = int((PCI / roles["hotplug_port"] / "secondary_bus_number").read_text())
    address = f"0000:{bus:02x}:00.0"
    until((PCI / address / "iommu_group").exists, "the device has not come")
    running = started(vfioctl.start("run", address, edu, *sh(f"{WAIT} exit 4")))
    assert driver_of(address) == driver_of(edu) == "vfio-pci"
    (PCI / address / "remove").write_text("1")
    GO.touch()
    result = running.wait()
    assert result.status == 4 and f"{address} is gone" in result.stderr
    qmp.device_del("visitor")
    assert qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "visitor"


def test_what_was_bound_before_stays(vfioctl: Vfioctl, edu: str) -> None:
    assert vfioctl("bind", edu, "--user", "12", "--mode", "640", "--acl", "user:13:rw").status == 0
    try:
        node = f"/dev/vfio/{group_of(edu)}"

        def access() -> tuple[int, int, str | None]:
            return os.stat(node).st_uid, os.stat(node).st_mode, read_acl(node)

        before = access()
        result = vfioctl("run", edu, *sh("stat -c '%u %a' $VFIOCTL_NODES | head -n 1"))
        assert (result.status, result.stdout) == (0, f"{NOBODY} 600\n"), result.stderr
        assert driver_of(edu) == "vfio-pci" and access() == before
    finally:
        assert vfioctl("unbind", edu).status == 0


def test_the_hosts_driver_comes_back(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    modprobe("e1000e")
    address = roles["nic_a"]
    unbind(address)
    probe(address)
    until((PCI / address / "net").exists, "no network interface")
    (name,) = os.listdir(PCI / address / "net")
    result = vfioctl("run", name, *sh(f"test ! -e /sys/class/net/{name}"))
    assert result.status == 0, result.stderr
    assert (driver_of(address), override_of(address)) == ("e1000e", None)
    until((PCI / address / "net").exists, "no network interface")
    assert list(RUNS.iterdir()) == []
