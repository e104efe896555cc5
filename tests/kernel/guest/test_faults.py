"""Every instant kills, every call fails, on a real kernel: afterwards the host is as it was before, or as it was to
be. The same sweeps as tests/faults, by strace's fault injection.

A system call costs a tracer two stops, and a case a second or two, so this takes samples: every SHARE-th case, and on
two kernels others. Faults that the kernel's version has no part in (vfioctl's own files, fork, signals, a second fault)
are for one kernel, and what is the same code whatever the command is swept for one command. tests/faults sweeps all of
it for all, on the fake. With VFIOCTL_TESTS_SWEEP=all every case is tried here, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice

import pytest

from tests.faults.sweep import Count
from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.fault_host import (
    ENDS,
    FORKS,
    OWN,
    POLLS,
    SHARED,
    Host,
    Scenario,
    instants,
    kernel_writes,
)
from tests.kernel.guest.sysfs import PCI, driver_of, group_of, modprobe, probe, unbind
from tests.kernel.testbed.inject import Fault, calls, with_faults
from tests.kernel.testbed.places import EVERYTHING

Record = Callable[[str, object], None]

KILL = "signal=SIGKILL"
#: Of so many cases one is tried here.
SHARE = 1 if EVERYTHING else 8
LONG = 3600.0 if SHARE == 1 else 900.0  # seconds
#: What goes before the rename that makes a record count, and what goes after the unlink that ends it.
RECORDING = (
    "mkdir",
    "mkdirat",
    "openat",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "pwrite64",
    "exit_group",
)
#: What the kernel may answer to a write.
ERRNOS = ("EBUSY", "ENODEV", "EIO", "EINVAL", "ENOSPC", "EACCES", "EEXIST", "ENOMEM")
#: What calls on vfioctl's own files, on device nodes and on processes may give.
OWN_ERRNOS = {
    **dict.fromkeys(FORKS, ("EAGAIN",)),
    **dict.fromkeys(("mkdir", "mkdirat", "openat"), ("ENOSPC", "EACCES")),
    **dict.fromkeys(("write", "fsync", "fdatasync", "ftruncate", "pwrite64"), ("ENOSPC", "EIO")),
    **dict.fromkeys(("rename", "renameat", "renameat2"), ("ENOSPC", "EIO")),
    **dict.fromkeys(("unlink", "unlinkat"), ("EIO", "EROFS")),
    **dict.fromkeys(
        ("chown", "fchown", "lchown", "fchownat", "chmod", "fchmod", "fchmodat"), ("EPERM", "EROFS")
    ),
    **dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), ("ENOSPC", "EOPNOTSUPP")),
    **dict.fromkeys(("removexattr", "lremovexattr", "fremovexattr"), ("EIO", "EOPNOTSUPP")),
}


def scenario(name: str, roles: Mapping[str, str]) -> Scenario:
    nic = roles["nic_a"]
    bound = (("bind", nic),)
    new_id = ("--method", "new-id", "--allow", "new-id-match")
    return {
        "bind one": Scenario(name, ("bind", nic, "--user", "65534")),
        "bind a group": Scenario(name, ("bind", str(group_of(roles["conv_bridge"])))),
        "bind by new-id": Scenario(name, ("bind", nic, *new_id)),
        "unbind": Scenario(name, ("unbind", nic), bound),
        "permit": Scenario(name, ("permit", str(group_of(nic)), "--user", "65534"), bound),
    }[name]


ALL = ("bind one", "bind a group", "bind by new-id", "unbind", "permit")


def sample(faults: Iterable[Fault], kernel: str) -> Iterator[Fault]:
    """Every SHARE-th one: on one kernel these, on the other those in the middle between them."""
    return islice(faults, SHARE // 2 if kernel.startswith("6.1.") else 0, None, SHARE)


def every_other(faults: Sequence[Fault]) -> Sequence[Fault]:
    """Half of them, where cases are few."""
    return faults[:: min(2, SHARE)]


def scenarios(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "host", names, ids=lambda name: name.replace(" ", "-"), indirect=True, scope="module"
    )


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, vfioctl: Vfioctl, roles: Mapping[str, str]) -> Iterator[Host]:
    free = [address for address in os.listdir(PCI) if driver_of(address) is None]
    modprobe("e1000e", "e1000", "vfio-pci", "vfio_iommu_type1")
    for role in ("nic_a", "nic_b", "conv_nic"):
        if driver_of(roles[role]) is None:
            probe(roles[role])
    host = Host(vfioctl, scenario(request.param, roles))
    yield host
    host.leave()
    for address in free:
        unbind(address)


def test_a_fault_that_does_not_happen_is_noticed() -> None:
    never, once = Fault("rename", KILL), Fault("exit_group", KILL)
    traced = with_faults(("list-groups",), [never])
    assert (traced.result.status, traced.met(never)) == (0, False)
    traced = with_faults(("list-groups",), [once])
    assert (traced.result.status, traced.met(once)) == (-9, True)


@pytest.mark.deadline(LONG)
@scenarios(*ALL)
def test_killed_everywhere(host: Host, record_property: Record, kernel: str) -> None:
    count = Count()
    # A child that has ended: what comes next is met in the same state. And of what keeps the state before, and is the
    # same for every command, two calls make it count and not count.
    same = ENDS if host.scenario.name == "bind one" else (*ENDS, *RECORDING)
    for instant in sample((each for each in instants(host.calls) if each.call not in same), kernel):
        fault = instant._replace(what=KILL)
        with count.case(host):
            traced = host.strike(fault)
            assert (traced.result.status == -9) is traced.met(fault)
            host.settle(fault)
    count.judge(1, record_property)


@pytest.mark.deadline(LONG)
@scenarios("bind one", "bind a group", "bind by new-id", "unbind")
def test_the_kernel_refuses(host: Host, record_property: Record, kernel: str) -> None:
    """Every file with every errno for one device, and the writer killed; else one errno each by turns. It refuses
    the way back, too, where that goes by the same file. (ENODEV from remove_id is left out: it says that the id is
    gone.)"""
    count = Count()
    turns = cycle(error for error in ERRNOS if error != "ENODEV")
    for path in kernel_writes(host.calls):
        thorough = host.scenario.name == "bind one"
        wanted = [*(f"error={error}" for error in ERRNOS), KILL] if thorough else [f"error={next(turns)}"]
        faults = [Fault("write", what, path=path) for what in wanted]
        for fault in sample(faults, kernel) if thorough else faults:
            with count.case(host):
                assert host.strike(fault).result.status != 0
                host.settle(fault)
    count.judge(3, record_property)


@pytest.mark.kernels("6.1")
@pytest.mark.deadline(LONG)
@scenarios("bind one")
def test_its_own_calls_fail(host: Host, record_property: Record) -> None:
    """A full disk, and whatever else its files and the nodes may meet, one errno each by turns; a process that cannot
    be started."""
    count = Count()
    failing = [each for each in instants(host.calls, all=True) if each.call in OWN_ERRNOS]
    for turn, instant in enumerate(every_other(failing)):
        errors = OWN_ERRNOS[instant.call]
        fault = instant._replace(what=f"error={errors[turn % len(errors)]}")
        with count.case(host):
            host.strike(fault)
            host.settle(fault)
    count.judge(8, record_property)


@pytest.mark.kernels("6.1")
@pytest.mark.deadline(LONG)
@scenarios("bind one")
def test_no_fork_from_one_on(host: Host, record_property: Record) -> None:
    """The way back fails too: that has to be said, and ``recover`` puts it right later."""
    count = Count()
    forks = [each for each in instants(host.calls, all=True) if each.call in FORKS]
    for instant in every_other(forks):
        fault = instant._replace(what="error=EAGAIN", when=f"{instant.when}+")
        with count.case(host):
            host.strike(fault)
            host.settle(fault)
    count.judge(3, record_property)


@pytest.mark.kernels("7.2")
@pytest.mark.deadline(LONG)
@scenarios("bind one")
def test_a_signal_everywhere(host: Host, record_property: Record) -> None:
    """One signal each by turns, for they have one handler."""
    count = Count()
    signals = cycle(("SIGTERM", "SIGINT", "SIGHUP"))
    for instant in every_other([each for each in instants(host.calls) if each.call != "exit_group"]):
        fault = instant._replace(what=f"signal={next(signals)}")
        with count.case(host):
            host.strike(fault)
            host.settle(fault)
    count.judge(3, record_property)


@pytest.mark.kernels("7.2")
@pytest.mark.deadline(LONG)
@scenarios("bind a group")
def test_killed_and_then_killed_in_recovery(host: Host, record_property: Record) -> None:
    """When all has been changed: recovery has most to do then."""
    count = Count()
    done = [instant for instant in instants(host.calls) if instant.call.startswith("unlink")][-1]
    host.stay_interrupted(done._replace(what=KILL))
    result, seen = calls(("recover",), (*OWN, *SHARED))
    assert result.status == 0, result.stderr
    host.reset()
    for instant in every_other([each for each in instants(seen) if each.call not in (*ENDS, *RECORDING)]):
        fault = instant._replace(what=KILL)
        with count.case(host):
            host.interrupt()
            traced = host.recover(fault)
            assert (traced.result.status == -9) is traced.met(fault)
            host.settle(fault, undone=True)
    count.judge(5, record_property)


@pytest.mark.kernels("6.1")
@pytest.mark.deadline(LONG)
@scenarios("bind a group")
def test_a_fault_and_then_killed_on_the_way_back(host: Host, record_property: Record) -> None:
    """The last kernel write fails, and what puts the others back is killed."""
    count = Count()
    last = [instant for instant in instants(host.calls) if instant.call in FORKS][-1]
    first = last._replace(what="error=EAGAIN")
    result, seen = calls(host.scenario.command, (*OWN, *SHARED), [first])
    assert result.status == 8, result.stderr
    host.reset()
    failed = next(index for index, call in enumerate(seen) if call.name == first.call and call.result == -1)
    # strace has one fault for each system call, and no path for one of two.
    possible = [
        each
        for each in instants(seen, after=failed)
        if each.call not in (first.call, *POLLS) and each.path is None
    ]
    for instant in every_other(possible):
        second = instant._replace(what=KILL)
        with count.case(host):
            traced = host.strike(first, second)
            assert (traced.result.status == -9) is traced.met(second)
            host.settle(second, undone=True)
    count.judge(3, record_property)
