"""list-groups, list-devices, check-viable: shapes and answers."""

from __future__ import annotations

import pytest

from tests.contract.world import World, done, refused

MEMBER = {"address", "bus", "class", "vendor", "device", "subsystem_vendor", "subsystem_device", "driver",
          "driver_override", "vfio_dev", "cdev"}  # fmt: skip

COMMANDS = ("check-viable", "list-groups", "list-devices", "show", "bind", "unbind", "permit")
#: What names nothing here (3), and what can name nothing anywhere (2).
BAD_NAMES = (
    ("0000:ff:1f.7", 3),
    ("99999", 3),
    ("platform/fe000000.dma", 3),
    ("no-such-nic0", 3),
    ("0000:00:00.8", 2),
    ("../../etc", 2),
    ("pci/../x", 2),
    ("\x1b[31m0000:00:00.0", 2),
    ("0000:00:00.0\n", 2),
    ("", 2),
    ("1" * 5000, 2),
)


class Looking:
    """For a fixture ``world``."""

    def test_groups_have_their_shape(self, world: World) -> None:
        document = done(world.run("list-groups", "-J"))
        assert document["schema_version"] == 1
        numbers = [group["id"] for group in document["groups"]]
        assert numbers == sorted(numbers) and world.group(world.roles["edu"]) in numbers
        for group in document["groups"]:
            assert {"id", "name", "type", "viable", "usable", "node", "reserved_regions", "devices"} <= set(
                group
            )
            assert isinstance(group["viable"], bool) and isinstance(group["usable"], bool)
            assert group["node"] is None or set(group["node"]) == {"path", "uid", "gid", "mode"}
            addresses = [device["address"] for device in group["devices"]]
            assert addresses == sorted(addresses)
            for device in group["devices"]:
                assert set(device) >= MEMBER
            for region in group["reserved_regions"]:
                assert isinstance(region["start"], int) and isinstance(region["end"], int)

    def test_devices_have_their_shape(self, world: World) -> None:
        devices = {d["address"]: d for d in done(world.run("list-devices", "-J"))["devices"]}
        nic = devices[world.roles["nic_a"]]
        assert set(nic) >= MEMBER | {"group"}
        assert (nic["vendor"], nic["device"], nic["class"], nic["driver"]) == (
            "8086",
            "10d3",
            "020000",
            "e1000e",
        )
        assert nic["group"] == world.group(world.roles["nic_a"])
        assert nic["driver_override"] is None and nic["cdev"] is None
        assert devices[world.roles["edu"]]["driver"] is None

    def test_filters(self, world: World) -> None:
        found = done(world.run("list-devices", "--driver", "e1000e", "-J"))["devices"]
        assert {device["address"] for device in found} == {world.roles["nic_a"], world.roles["nic_b"]}
        plain = world.run("list-devices", "--vendor", "1234:11e8", "-n", "-o", "address", "--format", "plain")
        assert world.roles["edu"] in plain.stdout.splitlines()

    def test_a_host_driver_blocks(self, world: World) -> None:
        nic = world.roles["nic_a"]
        result = world.run("check-viable", nic, "-J")
        assert result.status == 1
        (found,) = result.json["results"]
        assert (found["subject"], found["group"], found["viable"]) == (nic, world.group(nic), False)
        (member,) = found["members"]
        assert (member["verdict"], member["reason"]) == ("blocking", "host-driver")
        assert member["cure"] == f"vfioctl bind {nic}"
        assert found["live"] is None

    def test_a_device_without_a_driver_is_viable_not_usable(self, world: World) -> None:
        edu = world.roles["edu"]
        (found,) = done(world.run("check-viable", edu, "-J"))["results"]
        assert (found["viable"], found["usable"]) == (True, False)
        assert [problem["code"] for problem in found["problems"]] == ["no-vfio-member"]
        assert world.run("check-viable", "--usable", "-q", edu).status == 1

    def test_a_port_on_pcieport_is_viable(self, world: World) -> None:
        result = world.run("check-viable", "-q", world.roles["port_a"])
        assert (result.status, result.stdout) == (0, "")

    def test_the_worst_answer_decides(self, world: World) -> None:
        assert world.run("check-viable", "-q", world.roles["edu"], world.roles["nic_a"]).status == 1

    @pytest.mark.parametrize("command", COMMANDS)
    def test_bad_names(self, world: World, command: str) -> None:
        more = ("--user", "0") if command == "permit" else ()
        for name, status in BAD_NAMES:
            assert refused(world.run(command, name, *more, "-J"), status)["errno"] is None
        as_text = world.run(command, "\x1b[31m0000:00:00.0\n", *more)
        assert as_text.status == 2 and as_text.stdout == ""
        assert "\x1b" not in as_text.stderr and "\\x1b[31m" in as_text.stderr

    def test_usage(self, world: World) -> None:
        refused(world.run("bind", "-J"), 2)
        refused(world.run("list-groups", "--no-such-option", "-J"), 2)
        assert refused(world.run("list-grops", "-J"), 2)["hint"] == "did you mean list-groups?"
        refused(world.run("list-groups", "-o", "no-such-column", "-J"), 2)
