"""bind, unbind, permit, revoke: what is moved, what is refused, and what is read back."""

from __future__ import annotations

import errno

import pytest

from tests.contract.world import World, done, refused, state

USER = 65534


def new_id_of(world: World, role: str) -> str:
    """What ``--method new-id`` writes for a device."""
    (device,) = done(world.run("list-devices", world.roles[role], "-J"))["devices"]
    keys = ("vendor", "device", "subsystem_vendor", "subsystem_device", "class")
    return " ".join([*(device[key] for key in keys), "ffffff"])


class Moving:
    """For a fixture ``world``, whose devices are at the start as ``tests.contract.world.MOVED`` says."""

    def test_bind_and_unbind(self, world: World) -> None:
        nic = world.roles["nic_a"]
        group = world.group(nic)
        before = state(world)
        document = done(world.run("bind", nic, "-J"))
        assert (document["schema_version"], document["changed"]) == (1, True)
        (device,) = document["devices"]
        expected = {
            "address": nic,
            "group": group,
            "driver": "vfio-pci",
            "driver_before": "e1000e",
            "driver_override": "vfio-pci",
            "changed": True,
            "node": {"path": f"/dev/vfio/{group}", "uid": 0, "gid": 0, "mode": "0600"},
            "cdev": None,
        }
        assert {key: device[key] for key in expected} == expected
        assert (world.driver(nic), world.override(nic)) == ("vfio-pci", "vfio-pci")
        assert world.node(group) == (0, 0, 0o600)
        (found,) = done(world.run("check-viable", "--usable", group, "-J"))["results"]
        assert found["viable"] and found["usable"]
        again = done(world.run("bind", nic, "-J"))
        assert again["changed"] is False and again["devices"][0]["changed"] is False
        document = done(world.run("unbind", nic, "-J"))
        assert document["changed"] is True
        assert (document["devices"][0]["driver"], document["devices"][0]["driver_before"]) == (
            "e1000e",
            "vfio-pci",
        )
        assert state(world) == before
        assert world.node(group) is None
        assert done(world.run("unbind", nic, "-J"))["changed"] is False

    def test_two_devices_at_once(self, world: World) -> None:
        both = (world.roles["nic_b"], world.roles["nic_a"])
        document = done(world.run("bind", *both, "-J"))
        assert {device["address"] for device in document["devices"]} == set(both)
        assert [world.driver(address) for address in both] == ["vfio-pci", "vfio-pci"]
        done(world.run("unbind", *both, "-J"))
        assert [world.driver(address) for address in both] == ["e1000e", "e1000e"]

    def test_dry_run_shows_the_override_first_and_changes_nothing(self, world: World) -> None:
        nic = world.roles["nic_a"]
        before = state(world)
        result = world.run("bind", nic, "--dry-run")
        assert result.status == 0 and state(world) == before
        lines = [line for line in result.stdout.splitlines() if line.startswith("echo")]
        assert lines == [
            f"echo vfio-pci > /sys/bus/pci/devices/{nic}/driver_override",
            f"echo {nic} > /sys/bus/pci/drivers/e1000e/unbind",
            f"echo {nic} > /sys/bus/pci/drivers/vfio-pci/bind",
        ]

    def test_a_bridge_is_refused(self, world: World) -> None:
        before = state(world)
        error = refused(world.run("bind", world.roles["port_a"], "-J"), 5)
        assert (error["code"], error["subject"]) == ("bridge", world.roles["port_a"])
        refused(world.run("bind", world.roles["nic_a"], world.roles["conv_bridge"], "-J"), 5)
        assert state(world) == before

    def test_a_group_whose_bridge_blocks(self, world: World) -> None:
        before = state(world)
        group = world.group(world.roles["conv_bridge"])
        assert world.run("check-viable", "-q", group).status == 1
        done(world.run("bind", "--group", world.roles["conv_edu0"], "-J"))
        assert world.run("check-viable", "-q", "--usable", group).status == 0
        assert world.driver(world.roles["conv_bridge"]) is None
        for role in ("conv_edu0", "conv_edu1", "conv_nic"):
            assert world.driver(world.roles[role]) == "vfio-pci"
        assert done(world.run("bind", group, "-J"))["changed"] is False
        done(world.run("unbind", group, "-J"))
        assert state(world) == before
        assert world.run("check-viable", "-q", group).status == 1

    def test_a_device_without_a_driver_goes_back_to_none(self, world: World) -> None:
        edu = world.roles["edu"]
        done(world.run("bind", edu, "-J"))
        assert done(world.run("unbind", edu, "-J"))["devices"][0]["driver"] is None
        assert (world.driver(edu), world.override(edu)) == (None, None)

    def test_unbind_to_a_driver(self, world: World) -> None:
        nic = world.roles["nic_a"]
        done(world.run("bind", nic, "-J"))
        done(world.run("unbind", nic, "--to", "pci-stub", "-J"))
        assert (world.driver(nic), world.override(nic)) == ("pci-stub", None)
        done(world.run("unbind", nic, "--to", "e1000e", "-J"))
        assert (world.driver(nic), world.override(nic)) == ("e1000e", None)

    def test_leave_unbound(self, world: World) -> None:
        nic = world.roles["nic_a"]
        done(world.run("unbind", nic, "--leave-unbound", "-J"))
        assert (world.driver(nic), world.override(nic)) == (None, None)
        refused(world.run("unbind", nic, "--to", "e1000e", "--leave-unbound", "-J"), 2)

    def test_a_driver_that_refuses(self, world: World) -> None:
        """virtio-pci looks at the device id itself, whatever made it match."""
        nic = world.roles["nic_a"]
        for setup in ((), ("bind", nic)):
            if setup:
                assert world.run(*setup).status == 0
            before = state(world)
            error = refused(world.run("unbind", nic, "--to", "virtio-pci", "-J"), 8)
            assert (error["code"], error["errno"], error["subject"]) == ("failed-restored", "ENODEV", nic)
            assert state(world) == before

    def test_a_failure_among_several_puts_all_back(self, world: World) -> None:
        before = state(world)
        both = (world.roles["nic_a"], world.roles["edu"])
        refused(world.run("unbind", *both, "--to", "virtio-pci", "-J"), 8)
        assert state(world) == before
        assert done(world.run("recover", "-J"))["changed"] is False

    def test_drivers_that_are_not_there(self, world: World) -> None:
        before = state(world)
        nic = world.roles["nic_a"]
        assert refused(world.run("bind", nic, "--driver", "e1000e", "-J"), 5)["code"] == "not-a-vfio-driver"
        assert refused(world.run("unbind", nic, "--to", "no-such-driver", "-J"), 7)["code"] == "no-module"
        refused(world.run("unbind", nic, "--to", "../x", "-J"), 2)
        refused(world.run("unbind", nic, "--to", "a\nb", "-J"), 2)
        assert state(world) == before

    # --- new-id ---------------------------------------------------------------------------------

    def test_new_id_names_the_twin(self, world: World) -> None:
        before = state(world)
        error = refused(world.run("bind", world.roles["nic_a"], "--method", "new-id", "-J"), 5)
        assert error["code"] == "new-id-match"
        assert world.roles["nic_b"] in error["message"]
        assert state(world) == before

    def test_new_id_leaves_a_twin_on_its_driver(self, world: World) -> None:
        nic, twin = world.roles["nic_a"], world.roles["nic_b"]
        document = done(world.run("bind", nic, "--method", "new-id", "--allow", "new-id-match", "-J"))
        assert [device["address"] for device in document["devices"]] == [nic]
        assert (world.driver(nic), world.override(nic)) == ("vfio-pci", None)
        assert world.driver(twin) == "e1000e"
        # The id is gone: a twin that has no driver is not taken.
        done(world.run("unbind", twin, "--leave-unbound", "-J"))
        world.write("/sys/bus/pci/drivers_probe", twin)
        assert world.driver(twin) == "e1000e"
        with pytest.raises(OSError) as caught:
            world.write("/sys/bus/pci/drivers/vfio-pci/remove_id", new_id_of(world, "nic_a"))
        assert caught.value.errno == errno.ENODEV
        done(world.run("unbind", nic, "-J"))
        assert world.driver(nic) == "e1000e"

    def test_new_id_takes_an_unbound_twin_and_says_so(self, world: World) -> None:
        nic, twin = world.roles["nic_a"], world.roles["nic_b"]
        done(world.run("unbind", twin, "--leave-unbound", "-J"))
        document = done(world.run("bind", nic, "--method", "new-id", "--allow", "new-id-match", "-J"))
        assert {device["address"] for device in document["devices"]} == {nic, twin}
        assert [world.driver(address) for address in (nic, twin)] == ["vfio-pci", "vfio-pci"]
        done(world.run("unbind", nic, twin, "-J"))
        assert [world.driver(address) for address in (nic, twin)] == ["e1000e", None]

    def test_new_id_that_is_there_already_stays(self, world: World) -> None:
        fields = new_id_of(world, "nic_a")
        world.load_module("vfio-pci")
        world.write("/sys/bus/pci/drivers/vfio-pci/new_id", fields)
        try:
            command = ("bind", world.roles["nic_a"], "--method", "new-id", "--allow", "new-id-match", "-J")
            done(world.run(*command))
            assert world.driver(world.roles["nic_a"]) == "vfio-pci"
        finally:
            world.write("/sys/bus/pci/drivers/vfio-pci/remove_id", fields)

    # --- access ---------------------------------------------------------------------------------

    def test_bind_for_a_user(self, world: World) -> None:
        edu = world.roles["edu"]
        group = world.group(edu)
        document = done(world.run("bind", edu, "--user", USER, "--mode", "640", "-J"))
        assert document["devices"][0]["node"] == {
            "path": f"/dev/vfio/{group}",
            "uid": USER,
            "gid": 0,
            "mode": "0640",
        }
        assert world.node(group) == (USER, 0, 0o640)

    def test_permit_and_revoke(self, world: World) -> None:
        edu = world.roles["edu"]
        group = world.group(edu)
        assert refused(world.run("permit", group, "--user", USER, "-J"), 1)["code"] == "no-vfio-member"
        done(world.run("bind", edu, "-J"))
        document = done(world.run("permit", group, "--user", USER, "-J"))
        assert document["changed"] is True
        assert world.node(group) == (USER, 0, 0o600)
        assert done(world.run("permit", edu, "--user", USER, "-J"))["changed"] is False
        refused(world.run("permit", group, "--user", "no-such-user", "-J"), 3)
        assert (
            refused(world.run("permit", group, "--user", USER, "--mode", "666", "-J"), 2)["code"]
            == "world-access"
        )
        assert world.node(group) == (USER, 0, 0o600)
        done(world.run("revoke", group, "-J"))
        assert world.node(group) == (0, 0, 0o600)
