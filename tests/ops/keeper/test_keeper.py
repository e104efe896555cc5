"""A keeper as its clients see it: on a fake VFIO, in a process of its own as in earnest."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.command import run_command
from tests.fakes.machine import FakeMachine
from tests.fakes.topology import ROLES
from tests.ops.keeper.conftest import groups
from vfioctl.errors import (
    Busy,
    DeadlinePassed,
    KernelRefusal,
    NotFound,
    PermissionDenied,
    UsageError,
    VfioctlError,
)
from vfioctl.host import channel
from vfioctl.host.channel import Channel, Message
from vfioctl.ops.keeper import named, spawn
from vfioctl.ops.keeper.client import Client
from vfioctl.ops.keeper.kept import Settings
from vfioctl.ops.keeper.requests import OPERATIONS

MIB = 1 << 20


@pytest.fixture
def client(machine: FakeMachine) -> Iterator[Client]:
    with spawn.temporary(machine, "auto") as client:
        client.call("add", {"groups": groups(machine)[:1]})
        yield client


def test_a_mapping_and_its_memory(client: Client, machine: FakeMachine) -> None:
    steps: list[tuple[str, int, int]] = []
    made = client.call(
        "map", {"size": 3 * MIB, "chunk": MIB, "iova": 0x10000}, progress=lambda *step: steps.append(step)
    )
    assert made.fields["mappings"] == [[0x10000, 3 * MIB, "rw", "anonymous", MIB]]
    assert steps[-1] == ("map", 3 * MIB, 3 * MIB)
    data = os.urandom(2 * MIB + 5)
    client.write(0x10000 + MIB // 2, data)  # across mappings
    assert client.read(0x10000 + MIB // 2, len(data)) == data
    assert client.read(0x10000, 4) == bytes(4)
    found = client.show()
    assert found["mappings"] == [
        {"iova": 0x10000, "size": 3 * MIB, "prot": "rw", "source": "anonymous", "chunk": MIB}
    ]
    assert (found["backend"], found["groups"], found["pid"]) == ("type1v2", groups(machine)[:1], client.pid)
    assert client.call("unmap", {"iova": 0x10000 + MIB}).fields == {"unmapped": MIB}
    with pytest.raises(NotFound, match="nothing is mapped") as caught:
        client.read(0x10000 + MIB, 1)
    assert caught.value.code == "not-mapped"
    assert client.call("unmap", {"all": True}).fields == {"unmapped": 2 * MIB}


def test_it_ends_with_its_client(machine: FakeMachine) -> None:
    with spawn.temporary(machine, "auto") as client:
        pid = client.pid
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")
    client = spawn.start(machine, "auto")
    with client:
        pass  # hung up, without a word
    spawn.end(client.pid)
    assert not os.path.exists(f"/proc/{client.pid}")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"iova": 0x10000}, "not-mapped"),
        ({"iova": 0x100000, "size": 0x1000}, "mapping-cut"),
        ({"iova": 0x101000}, "mapping-cut"),
        ({"iova": 0x200000, "size": 0x100000}, "not-mapped"),
    ],
)
def test_what_cannot_be_unmapped(client: Client, request_: dict[str, int], code: str) -> None:
    client.call("map", {"size": 0x100000, "iova": 0x100000})
    with pytest.raises(VfioctlError) as caught:
        client.call("unmap", request_)
    assert caught.value.code == code
    assert len(client.show()["mappings"]) == 1


def test_a_range_unmaps_what_lies_in_it(client: Client) -> None:
    client.call("map", {"size": 0x4000, "iova": 0x100000, "chunk": 0x1000})
    assert client.call("unmap", {"iova": 0x101000, "size": 0x2000}).fields == {"unmapped": 0x2000}
    assert [m["iova"] for m in client.show()["mappings"]] == [0x100000, 0x103000]


def test_descriptors_are_kept(client: Client) -> None:
    for number in range(3):
        fd = os.eventfd(number)
        client.keep(f"irq/a/msi/{number}", fd)
        os.close(fd)
    found = client.kept("irq/a/")
    assert list(found) == [f"irq/a/msi/{number}" for number in range(3)]
    assert [os.eventfd_read(fd) for fd in list(found.values())[1:]] == [1, 2]
    for fd in found.values():
        os.close(fd)
    client.drop("irq/a/msi/1")
    assert client.show()["kept"] == ["irq/a/msi/0", "irq/a/msi/2"]


def test_groups_come_and_go(client: Client, machine: FakeMachine) -> None:
    first, second = groups(machine)
    client.call("add", {"groups": [second]})
    with pytest.raises(VfioctlError) as caught:
        client.call("add", {"groups": [second]})
    assert caught.value.status == Busy.status
    client.call("map", {"size": MIB})
    client.call("remove", {"group": first})
    assert client.show()["groups"] == [second] and len(client.show()["mappings"]) == 1
    client.call("remove", {"group": second})
    found = client.show()
    assert (found["groups"], found["mappings"]) == ([], [])
    with pytest.raises(VfioctlError) as caught:
        client.call("remove", {"group": second})
    assert caught.value.status == NotFound.status
    client.call("add", {"groups": [first]})


def test_one_that_does_not_answer(machine: FakeMachine) -> None:
    machine.fake.fail = lambda number, call: time.sleep(60) if call == "VFIO_SET_IOMMU" else None  # type: ignore[attr-defined]
    machine.timeout = 0.3
    client = spawn.start(machine, "auto")
    with client, pytest.raises(DeadlinePassed, match=f"not answered within 0.3 s: process {client.pid}"):
        client.call("add", {"groups": groups(machine)[:1]})
    os.kill(client.pid, signal.SIGKILL)
    spawn.end(client.pid)


def test_who_goes_away_has_it_undone(machine: FakeMachine) -> None:
    machine.fake.fail = lambda number, call: time.sleep(0.02) if call == "VFIO_IOMMU_MAP_DMA" else None  # type: ignore[attr-defined]
    path = opened(machine)
    hurried = channel.connect(path)
    hurried.queue(Message({"op": "map", "size": 4 << 20, "chunk": 4096}))
    assert hurried.flush()
    while hurried.receive() is None:  # something has been done
        pass
    hurried.close()
    with named.connected(machine, "work") as client:
        client.call("unmap", {"all": True})  # waits until that is over
        assert client.show()["mappings"] == []
        client.call("map", {"size": 4 << 20})
        client.close()


def opened(machine: FakeMachine) -> str:
    ((found, is_new),) = named.open_container(machine, "work", groups(machine)[:1], "auto")
    assert is_new and found["name"] == "work"
    return os.path.join(named.directory(machine), "work")


def test_a_name(machine: FakeMachine) -> None:
    path = opened(machine)
    assert named.names(machine) == ["work"]
    assert named.holding(machine, groups(machine)[0]) == "work"
    assert named.holding(machine, groups(machine)[1]) is None
    assert named.open_container(machine, "work", groups(machine)[:1], "auto")[0][1] is False
    with pytest.raises(Busy):
        named.open_container(machine, "work", groups(machine), "auto")
    with named.connected(machine, "work") as one, named.connected(machine, "work") as two:
        one.call("map", {"size": MIB})
        assert len(two.show()["mappings"]) == 1
        two.close()
        with pytest.raises(VfioctlError) as caught:
            one.show()
        assert caught.value.code == "keeper-gone"
    assert not os.path.exists(path)
    with pytest.raises(NotFound), named.connected(machine, "work"):
        pass


def test_one_that_is_open_with_other_settings(machine: FakeMachine) -> None:
    opened(machine)
    group = groups(machine)[:1]
    for wanted, other in (
        (Settings(release_on_request=True), "release on request"),
        (Settings(charge="user"), "charge"),
    ):
        with pytest.raises(Busy, match=f"with other {other}"):
            named.open_container(machine, "work", group, "auto", wanted)
    ((found, is_new),) = named.open_container(machine, "work", group, "auto", Settings(charge="process"))
    assert (found["accounting"], is_new) == ("process", False)
    assert run_command(machine, "container", "close", "work").status == 0


def test_groups_are_removed_together_or_not_at_all(machine: FakeMachine) -> None:
    opened(machine)
    (first, second) = groups(machine)
    for other in (second, 9**25):
        refused = run_command(machine, "container", "remove", "work", first, other, "-J")
        assert (refused.status, refused.json_error["code"]) == (3, "not-in-container")
    assert run_command(machine, "container", "show", "work", "-J").json["groups"] == [first]
    assert run_command(machine, "container", "close", "work").status == 0


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it(machine: FakeMachine, name: signal.Signals) -> None:
    path = opened(machine)
    with named.connected(machine, "work") as client:
        os.kill(client.pid, name)
        client.wait_for_end(time.monotonic() + 20)
    assert not os.path.exists(path)


def test_one_that_was_killed_is_not_there(machine: FakeMachine) -> None:
    path = opened(machine)
    with named.connected(machine, "work") as client:
        os.kill(client.pid, signal.SIGKILL)
        client.wait_for_end(time.monotonic() + 20)
        deadline = time.monotonic() + 20
        while named.names(machine) and time.monotonic() < deadline:  # its listening socket may be closed last
            time.sleep(0.01)
    assert os.path.exists(path) and named.names(machine) == []
    assert opened(machine) == path
    with named.connected(machine, "work") as client:
        client.close()


def test_one_that_takes_no_connection(machine: FakeMachine) -> None:
    opened(machine)
    with named.connected(machine, "work") as client:
        os.kill(client.pid, signal.SIGSTOP)
        waiting = []
        with pytest.raises(BlockingIOError):
            while True:
                waiting.append(channel.connect(os.path.join(named.directory(machine), "work")))
        assert named.names(machine) == ["work"]
        machine.timeout = 0.2
        with pytest.raises(DeadlinePassed, match="has not taken a connection"):
            named.open_container(machine, "work", groups(machine)[:1], "auto")
        os.kill(client.pid, signal.SIGCONT)
        machine.timeout = 20
        assert run_command(machine, "container", "list", "-n", "-o", "name").stdout == "work\n"
        client.close()
    for each in waiting:
        each.close()


def test_another_users_is_not_talked_to(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(machine)
    stranger = channel.Peer(1, 12345, 12345)
    with monkeypatch.context() as context:
        context.setattr(Channel, "peer", stranger)
        with pytest.raises(PermissionDenied, match="another user's"), named.connected(machine, "work"):
            pass
        assert named.holding(machine, groups(machine)[0]) is None
    with named.connected(machine, "work") as client:
        client.close()


def test_one_that_is_closed_meanwhile(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(machine)
    monkeypatch.setattr(named, "names", lambda machine: ["other", "work"])
    assert [each["name"] for each in run_command(machine, "container", "list", "-J").json["containers"]] == [
        "work"
    ]
    assert run_command(machine, "container", "close", "other").status == NotFound.status
    assert run_command(machine, "container", "close", "--all").status == 0


def test_descriptors_do_not_run_out(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with spawn.temporary(machine, "auto") as client:
        client.call("add", {"groups": groups(machine)[:1]})
        assert resource.prlimit(client.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        before = len(os.listdir(f"/proc/{client.pid}/fd"))
        resource.prlimit(client.pid, resource.RLIMIT_NOFILE, (before + 6, hard))
        wants = [[4096, None, "rw", "memfd", 0, None, None]]
        with pytest.raises(KernelRefusal) as caught:
            for _ in range(9):
                client.call("map", {"wants": wants})
        assert (caught.value.errno, caught.value.code) == (errno.EMFILE, "kernel")
        client.call("unmap", {"all": True})
        assert len(os.listdir(f"/proc/{client.pid}/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_the_shapes_of_changes(machine: FakeMachine) -> None:
    """As the manual has them."""
    first, second = groups(machine)
    opened(machine)
    changed = {"schema_version": 1, "name": "work", "changed": True}
    added = run_command(machine, "container", "add", "work", second, "-J")
    assert added.json == {**changed, "groups": [first, second]}
    removed = run_command(machine, "container", "remove", "work", second, "-J")
    assert removed.json == {**changed, "groups": [first]}
    again = run_command(machine, "container", "add", "work", first, "-J")
    assert again.json == {**changed, "groups": [first], "changed": False}
    refused = run_command(machine, "ioas", "create", "-c", "work", "-J")
    assert (refused.status, refused.stdout, refused.json_error["code"]) == (2, "", "not-supported")
    closed = run_command(machine, "container", "close", "work", "-J")
    assert closed.json == {"schema_version": 1, "containers": [{"name": "work", "changed": True}]}


def test_one_that_is_stopped_hides_no_other(machine: FakeMachine) -> None:
    opened(machine)
    named.open_container(machine, "stopped", groups(machine)[1:], "auto")
    with named.connected(machine, "stopped") as client:
        stopped = client.pid
    machine.timeout = 1
    os.kill(stopped, signal.SIGSTOP)
    try:
        listed = run_command(machine, "container", "list", "-J")
        assert listed.status == 124 and "has not answered" in listed.stderr
        assert [each["name"] for each in listed.json["containers"]] == ["work"]
        closed = run_command(machine, "container", "close", "--all", "-J")
        assert (closed.status, closed.json["containers"]) == (124, [{"name": "work", "changed": True}])
    finally:
        os.kill(stopped, signal.SIGCONT)
    machine.timeout = 20
    assert run_command(machine, "container", "close", "--all").status == 0


def test_a_socket_that_was_removed_is_not_missed(machine: FakeMachine) -> None:
    """And the one that has the name since keeps it."""
    path = opened(machine)
    with named.connected(machine, "work") as client:
        first = client.pid
        os.unlink(path)
        named.open_container(machine, "work", groups(machine)[1:], "auto")
        os.kill(first, signal.SIGTERM)
        client.wait_for_end(time.monotonic() + 20)
    with named.connected(machine, "work") as client:
        assert client.show()["groups"] == groups(machine)[1:]
        client.close()


def test_one_whose_device_is_unplugged_says_so(machine: FakeMachine) -> None:
    opened(machine)
    number = groups(machine)[0]
    machine.kernel.unplug(ROLES["nic_a"])
    listed = run_command(machine, "container", "show", "work", "-J")
    assert [device["gone"] for device in listed.json["devices"]] == [True]
    assert f"{ROLES['nic_a']} is gone: it was unplugged" in listed.stderr
    assert run_command(machine, "container", "remove", "work", number).status == 0
    assert run_command(machine, "container", "close", "work").status == 0


def test_which_devices_take_a_token(machine: FakeMachine) -> None:
    """A physical function, and a virtual one whose physical function is VFIO's."""
    physical = f"pci/{ROLES['nvme']}"
    machine.kernel.write(f"/sys/bus/pci/devices/{ROLES['nvme']}/sriov_numvfs", "1")
    (virtual,) = machine.virtual_functions(physical)
    assert not machine.takes_vf_token(f"pci/{ROLES['nic_a']}")
    assert machine.takes_vf_token(physical)
    assert not machine.takes_vf_token(virtual)
    machine.kernel.tree.directory(f"/sys/bus/pci/devices/{ROLES['nvme']}/vfio-dev/vfio9")
    assert machine.takes_vf_token(virtual)


def test_what_cannot_be_opened_leaves_nothing(machine: FakeMachine) -> None:
    children = set(os.listdir("/proc"))
    with pytest.raises(VfioctlError):
        named.open_container(machine, "work", [*groups(machine), 99999], "auto")
    assert named.names(machine) == []
    assert not any(
        os.path.exists(f"/proc/{pid}/stat") and f" {os.getpid()} " in Path(f"/proc/{pid}/stat").read_text()
        for pid in set(os.listdir("/proc")) - children
        if pid.isdecimal()
    )


def test_another_user_is_refused(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    path = opened(machine)
    monkeypatch.setattr(Channel, "peer", property(lambda self: channel.Peer(1, 12345, 12345)))
    stranger = spawn.start(machine, "auto")
    with stranger, pytest.raises(VfioctlError, match="another user's"):
        stranger.show()
    spawn.end(stranger.pid)
    monkeypatch.undo()
    found = channel.connect(path)
    with Client(found, found.peer.pid, 10) as client:
        client.close()


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a b", "x" * 65, "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError):
        named.check_name(name)


VALUES: Any = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)
FIELDS = sorted({name for operation in OPERATIONS.values() for name in operation.fields} | {"x"})


class TestNobodyBringsItDown:
    @pytest.fixture
    def path(self, machine: FakeMachine) -> Iterator[str]:
        path = opened(machine)
        yield path
        found = channel.connect(path)
        with Client(found, found.peer.pid, 10) as client:
            assert client.show()["groups"] == groups(machine)[:1]
            client.close()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        op=st.sampled_from(sorted(set(OPERATIONS) - {"close", "remove", "publish"})) | VALUES,
        fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5),
        data=st.binary(max_size=20),
        fds=st.integers(0, 3),
    )
    def test_requests(self, path: str, op: Any, fields: dict[str, Any], data: bytes, fds: int) -> None:
        here = channel.connect(path)
        here.queue(Message({**fields, "op": op}, data, (0,) * fds))
        here.flush()
        answer = None
        while answer is None or "progress" in answer.fields:
            answer = here.receive()
        assert set(answer.fields) in ({"ok"}, {"error"})
        if "error" in answer.fields:
            assert answer.fields["error"]["code"] != "bug", answer
        for fd in answer.fds:
            os.close(fd)
        here.close()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(packets=st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=4))
    def test_bytes(self, path: str, packets: list[bytes]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(path)
            try:
                for packet in packets:
                    sock.send(packet)
            except (BrokenPipeError, ConnectionResetError):
                pass  # hung up on


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_request_that_was_not_begun_leaves_no_descriptor(machine: FakeMachine) -> None:
    machine.fake.fail = lambda number, call: time.sleep(0.002) if call == "VFIO_IOMMU_MAP_DMA" else None  # type: ignore[attr-defined]
    path = opened(machine)
    with named.connected(machine, "work") as client:
        before = _open_files(client.pid)
        one, other = channel.connect(path), channel.connect(path)
        one.queue(Message({"op": "map", "size": 4 << 20, "chunk": 4096}))
        assert one.flush()
        while one.receive() is None:
            pass
        other.queue(Message({"op": "map", "size": 4096}, fds=(0,)))  # waits for the first
        assert other.flush()
        client.show()  # after that has been taken
        other.close()
        one.close()
        client.call("unmap", {"all": True})
        assert _open_files(client.pid) == before
        client.close()


def test_one_who_does_not_listen_does_not_keep_it_open(machine: FakeMachine) -> None:
    path = opened(machine)
    deaf = channel.connect(path)
    with named.connected(machine, "work") as client:
        client.call("map", {"size": MIB, "iova": 0x100000})
        deaf.queue(Message({"op": "read", "iova": 0x100000, "size": MIB}))
        assert deaf.flush()
        client.timeout = 20
        client.close()
    deaf.close()


def test_after_a_deadline_no_answer_is_mistaken(machine: FakeMachine) -> None:
    opened(machine)
    with named.connected(machine, "work") as client:
        os.kill(client.pid, signal.SIGSTOP)
        client.timeout = 0.1
        with pytest.raises(DeadlinePassed):
            client.show()
        os.kill(client.pid, signal.SIGCONT)
        with pytest.raises(DeadlinePassed):
            client.kept("irq/")
    with named.connected(machine, "work") as client:
        os.unlink(os.path.join(named.directory(machine), "work"))  # which somebody cleans up
        client.close()
