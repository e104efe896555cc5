"""Events: what two looks differ in, all of it and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vfioctl.model import Device, IommuGroup, Kernel, Node, PciIds, Snapshot
from vfioctl.policy.events import KINDS, Event, concerning, differences, known
from vfioctl.policy.subjects import parse
from vfioctl.policy.viability import judge

KERNEL = Kernel("6.1.0-13-amd64", "x86_64", True)
NIC = Device("0000:01:00.0", "pci", 7, PciIds("020000", "8086", "10d3", "8086", "0000"), modalias="pci:nic")
SOUND = Device("0000:01:00.1", "pci", 7, PciIds("040300", "8086", "1111", "8086", "0000"), modalias="pci:snd")
NODE = Node("/dev/vfio/7", 0, 0, 0o600)


def look(*devices: Device, node: Node | None = None, kernel: Kernel = KERNEL) -> Snapshot:
    """All devices in group 7."""
    groups = (IommuGroup(7, type="DMA", node=node, devices=devices),) if devices else ()
    return Snapshot(kernel, groups, devices)


def told(before: Snapshot, after: Snapshot) -> list[tuple[str, str | None, Any, Any]]:
    """Kind, address, before and after; of groups and devices only their names."""
    return [(e.kind, e.address, _name(e.before), _name(e.after)) for e in differences(before, after)]


def _name(value: Any) -> Any:
    return getattr(value, "address", getattr(value, "id", value))


def test_a_bind() -> None:
    before = look(NIC._replace(driver="e1000e"))
    after = look(
        NIC._replace(driver="vfio-pci", driver_override="vfio-pci", vfio_dev="vfio0", cdev=NODE), node=NODE
    )
    address = NIC.address
    assert told(before, after) == [
        ("unbound", address, "e1000e", None),
        ("override-changed", address, None, "vfio-pci"),
        ("bound", address, None, "vfio-pci"),
        ("node-added", None, None, NODE),
        ("node-added", address, None, NODE),
        ("viable", None, False, True),
    ]
    assert told(after, look(NIC, node=NODE._replace(uid=7))) == [
        ("unbound", address, "vfio-pci", None),
        ("node-removed", address, NODE, None),
        ("override-changed", address, "vfio-pci", None),
        ("node-access", None, NODE, NODE._replace(uid=7)),
    ]


def test_coming_and_going() -> None:
    nic = NIC._replace(driver="e1000e")
    come = [
        ("group-added", None, None, 7),
        ("device-added", NIC.address, None, NIC.address),
        ("bound", NIC.address, None, "e1000e"),
        ("not-viable", None, None, False),
    ]
    assert told(look(), look(nic)) == come
    assert told(look(nic), look()) == [
        ("unbound", NIC.address, "e1000e", None),
        ("device-removed", NIC.address, NIC.address, None),
        ("group-removed", None, 7, None),
    ]
    assert told(look(nic), look(nic, SOUND)) == [
        ("device-added", SOUND.address, None, SOUND.address),
        ("group-changed", None, 7, 7),
    ]


def test_another_device_at_the_same_address() -> None:
    other = NIC._replace(modalias="pci:other", driver="e1000e")
    assert [kind for kind, *_ in told(look(NIC._replace(driver="e1000e")), look(other))] == [
        "unbound",
        "device-removed",
        "device-added",
        "bound",
    ]


def test_a_lock_is_no_event() -> None:
    steered = look(NIC._replace(driver_override="vfio-pci"), SOUND)
    locked = look(NIC._replace(locked=True), SOUND)
    now = known(steered, locked)
    assert now.groups[0].devices[0].driver_override == now.devices[0].driver_override == "vfio-pci"
    assert "override-changed" not in [event.kind for event in differences(steered, now)]
    (event,) = differences(now, known(now, look(NIC._replace(driver_override="x"), SOUND)))
    assert (event.kind, event.before, event.after) == ("override-changed", "vfio-pci", "x")
    assert known(now, locked).devices[0].driver_override == "vfio-pci"
    # One that was never known has not changed.
    assert differences(locked, known(locked, locked)) == []
    assert differences(known(look(), locked), steered) == []


def test_whom_it_concerns() -> None:
    other = Device("0000:02:00.0", "pci", 8, driver="nvme")
    before = Snapshot(KERNEL, (), ())
    after = Snapshot(
        KERNEL, (IommuGroup(7, devices=(NIC, SOUND)), IommuGroup(8, devices=(other,))), (NIC, SOUND, other)
    )
    events = differences(before, after)

    def of(*names: str) -> list[tuple[str, int | None, str | None]]:
        found = concerning(events, [parse(name) for name in names], before, after)
        return [(event.kind, event.group, event.address) for event in found]

    group = [("group-added", 7, None), ("viable", 7, None)]
    nic, sound = ("device-added", 7, NIC.address), ("device-added", 7, SOUND.address)
    assert of() == [(e.kind, e.group, e.address) for e in events]
    assert set(of("7")) == {*group, nic, sound}
    assert set(of("01:00.0")) == {*group, nic}
    assert of("99") == of("ff:00.0") == of("platform/x") == []
    assert set(of("7", "8")) == set(of())


Facts = dict[Any, Any]


def facts(snapshot: Snapshot) -> Facts:
    """What events tell of, one by one."""
    found: Facts = {}
    for device in snapshot.devices:
        found["device", device.key] = device.modalias
        found["driver", device.key] = device.driver
        found["override", device.key] = device.driver_override
        found["node", device.key] = device.cdev
    for group in snapshot.groups:
        found["group", group.id] = (group.type, tuple(device.key for device in group.devices))
        found["node", group.id] = group.node
        found["viable", group.id] = judge(group, snapshot.kernel).viable
    return found


def apply(found: Facts, event: Event) -> None:
    """What is after the event; that which it says was before must be there."""
    after: Any = event.after
    what = event.group if event.key is None else event.key
    if event.kind in ("device-removed", "group-removed"):
        for fact in [fact for fact in found if fact[1] == what]:
            del found[fact]
        return
    if event.kind == "device-added":
        assert ("device", what) not in found
        found.update({("device", what): after.modalias})
        found.update({(kind, what): None for kind in ("driver", "override", "node")})
        return
    if event.kind in ("group-added", "group-changed"):
        assert (("group", what) in found) == (event.kind == "group-changed")
        found["group", what] = (after.type, tuple(device.key for device in after.devices))
        found.setdefault(("node", what), None)
        return
    kind = {"bound": "driver", "unbound": "driver", "override-changed": "override"}.get(
        event.kind, "node" if event.kind.startswith("node") else "viable"
    )
    assert found.get((kind, what)) == event.before
    assert event.before != event.after
    found[kind, what] = after


def nodes(path: str) -> st.SearchStrategy[Node | None]:
    return st.none() | st.builds(Node, st.just(path), st.integers(0, 1), st.just(0), st.just(0o600))


few_devices = st.builds(
    Device,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["pci", "platform"]),
    st.sampled_from([None, 7, 8]),
    driver=st.sampled_from([None, "nvme", "vfio-pci"]),
    driver_override=st.sampled_from([None, "x"]),
    cdev=nodes("/dev/vfio/devices/vfio0") | nodes("/dev/vfio/devices/vfio1"),
    modalias=st.sampled_from(["p", "q"]),
    locked=st.just(False),
)


@st.composite
def hosts(draw: st.DrawFn) -> Snapshot:
    """A few devices in two groups at most: two of them have much in common."""
    devices = draw(st.lists(few_devices, max_size=4, unique_by=lambda device: device.key))
    groups = tuple(
        IommuGroup(
            number,
            type=draw(st.sampled_from(["DMA", "identity"])),
            node=draw(nodes(f"/dev/vfio/{number}")),
            devices=tuple(device for device in devices if device.group == number),
        )
        for number in sorted({device.group for device in devices if device.group is not None})
    )
    return Snapshot(draw(st.sampled_from([KERNEL, Kernel("5.10.0")])), groups, tuple(devices))


@settings(max_examples=100, deadline=None)
@given(hosts(), hosts())
def test_the_events_lead_from_one_look_to_the_other(before: Snapshot, after: Snapshot) -> None:
    """Applied to the facts of the one, in their order, they make those of the other."""
    assert differences(before, before) == []
    now = facts(before)
    for event in differences(before, after):
        assert event.kind in KINDS
        apply(now, event)
    assert now == facts(after)
