"""Devices on other buses than PCI, and variant drivers, on the imitated kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.fakes.command import Result, run_command
from tests.fakes.drivers import FakeDevice, FakeDriver, PciId
from tests.fakes.kernel import FakeKernel
from tests.fakes.machine import FakeMachine, Killed
from tests.fakes.topology import ROLES, SMALL, boot
from vfioctl.host.holders import Holder

MDEV = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
NIC = ROLES["nic_a"]
MODULE = "acme_vfio_pci"
#: Its driver is not called as the module is.
VARIANT = "acme-vfio"


def device(bus: str, address: str, group: int | None, modalias: str, **more: object) -> FakeDevice:
    return FakeDevice(address, None, group, bus=bus, modalias=modalias, **more)  # type: ignore[arg-type]


def devices() -> list[FakeDevice]:
    return [
        device("platform", "fe000000.dma", 40, "of:Tpl330", resettable=True),
        device("amba", "9000000.pl011", 41, "amba:pl011"),
        device(
            "fsl-mc", "dprc.2", 42, "fsl-mc:dprc", children=(device("fsl-mc", "dpni.1", 42, "fsl-mc:dpni"),)
        ),
        device("cdx", "cdx-00:00", 43, "cdx:d1"),
        device("css", "0.0.0313", None, "css:t0"),
        device("ap", "05.0004", None, "ap:tD"),
        device("mdev", MDEV, 44, "mdev:x"),
    ]


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = boot(str(tmp_path), SMALL)
    for found in devices():
        kernel.plug(found)
    kernel.load_module("vfio_iommu_type1")
    return kernel


def run(kernel: FakeKernel, *arguments: object) -> Result:
    kernel.writes.clear()
    return run_command(FakeMachine(kernel), *arguments)


def state(kernel: FakeKernel) -> dict[str, tuple[str | None, str | None]]:
    return {address: (found.driver, found.override) for address, found in kernel.devices.items()}


MOVABLE = [
    ("platform/fe000000.dma", "vfio-platform", "pl330-dma", 40),
    ("amba/9000000.pl011", "vfio-amba", "pl011", 41),
    ("fsl-mc/dprc.2", "vfio-fsl-mc", "fsl_mc_dprc", 42),
    ("cdx/cdx-00:00", "vfio-cdx", "cdx_host", 43),
    ("css/0.0.0313", "vfio_ccw", "io_subchannel", None),
]


@pytest.mark.parametrize(("key", "driver", "host_driver", "group"), MOVABLE)
def test_to_the_driver_of_the_bus_and_back(
    kernel: FakeKernel, key: str, driver: str, host_driver: str, group: int | None
) -> None:
    before = state(kernel)
    bound = run(kernel, "bind", key, "-J")
    assert bound.status == 0, bound.stderr
    (record,) = bound.json["devices"]
    assert (record["bus"], record["driver"], record["driver_before"]) == (
        key.partition("/")[0],
        driver,
        host_driver,
    )
    assert (record["driver_override"], record["group"]) == (driver, group)
    assert (record["node"] is None) == (group is None)
    assert run(kernel, "bind", key, "-J").json["changed"] is False
    assert kernel.writes == []
    assert run(kernel, "unbind", key).status == 0
    assert state(kernel) == before


@pytest.mark.parametrize(("key", "driver", "host_driver", "group"), MOVABLE)
def test_a_kill_at_any_write_is_recovered_from(
    tmp_path: Path, key: str, driver: str, host_driver: str, group: int | None
) -> None:
    number = 0
    while True:
        number += 1
        kernel = boot(str(tmp_path / str(number)), SMALL)
        for found in devices():
            kernel.plug(found)
        before = state(kernel)
        machine = FakeMachine(kernel).die_at(number)
        try:
            assert run_command(machine, "bind", key).status == 0
        except Killed:
            assert run(kernel, "recover").status == 0
            assert state(kernel) == before
        else:
            break
    assert number > 6


def test_a_bus_without_override_is_rolled_back_without_one(kernel: FakeKernel) -> None:
    before = state(kernel)
    for number in range(1, 4):  # the last is what ends it
        machine = FakeMachine(kernel).fail_at(number, errno.EIO, after=True)
        assert run_command(machine, "unbind", "--leave-unbound", "ap/05.0004").status in (7, 8)
        assert state(kernel) == before
    assert run(kernel, "unbind", "--leave-unbound", "ap/05.0004").status == 0
    assert kernel.devices["05.0004"].driver is None
    assert run(kernel, "unbind", "--to", "cex4queue", "ap/05.0004").status == 0
    assert state(kernel) == before


def test_objects_follow_their_container(kernel: FakeKernel) -> None:
    refused = run(kernel, "bind", "fsl-mc/dpni.1", "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "container-child")
    assert refused.json_error["hint"].startswith("vfioctl bind fsl-mc/dprc.2")
    checked = run(kernel, "check-viable", 42, "-J").json["results"][0]
    cures = {member["address"]: member["cure"] for member in checked["members"]}
    assert cures["dpni.1"] == "vfioctl bind --group fsl-mc/dpni.1"
    assert run(kernel, "bind", "--group", "fsl-mc/dprc.2", "-J").json["devices"][0]["address"] == "dprc.2"
    assert (kernel.devices["dpni.1"].driver, kernel.devices["dpni.1"].override) == (
        "vfio-fsl-mc",
        "vfio-fsl-mc",
    )
    assert run(kernel, "check-viable", "-q", 42).status == 0


def test_a_subchannel_needs_no_group_and_says_what_comes_next(kernel: FakeKernel) -> None:
    assert "mdev_supported_types/vfio_ccw-io/create" in run(kernel, "bind", "css/0.0.0313").stderr


@pytest.mark.parametrize("key", ["platform/fe000000.dma", "css/0.0.0313", "ap/05.0004"])
def test_new_id_is_for_pci(kernel: FakeKernel, key: str) -> None:
    assert run(kernel, "bind", key, "--method", "new-id").status == 2
    assert kernel.writes == []


def test_ap_queues_go_by_masks(kernel: FakeKernel) -> None:
    refused = run(kernel, "bind", "ap/05.0004", "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "no-driver-override")
    assert "apmask" in refused.json_error["hint"] and "aqmask" in refused.json_error["hint"]
    assert kernel.writes == []


def test_a_mediated_device_has_its_driver_for_life(kernel: FakeKernel) -> None:
    bound = run(kernel, "bind", MDEV, "-J")
    assert bound.status == 0 and bound.json["changed"] is False
    refused = run(kernel, "unbind", MDEV, "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "mediated-device")
    assert f"{MDEV}/remove" in refused.json_error["hint"]
    kernel.write("/sys/bus/mdev/drivers/mtty/unbind", MDEV)
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        kernel.write("/sys/bus/mdev/drivers/mtty/bind", MDEV)
    refused = run(kernel, "bind", MDEV, "-J")
    assert (refused.status, refused.json_error["code"]) == (2, "mediated-device")
    assert kernel.writes == []


def test_a_mediated_device_that_is_held_is_not_to_be_removed_by_hand(kernel: FakeKernel) -> None:
    machine = FakeMachine(kernel)
    machine.held["/dev/vfio/44"] = [Holder(7, "qemu", 0)]
    refused = run_command(machine, "unbind", MDEV, "-J")
    assert (refused.status, refused.json_error["code"]) == (6, "group-busy")
    assert "process 7" in refused.json_error["message"]


@pytest.mark.parametrize("key", ["css/0.0.0313", f"pci/{NIC}"])
def test_the_parent_of_a_mediated_device(kernel: FakeKernel, key: str) -> None:
    """They go together, and the kernel waits for the user of the one that is made when it loses its parent's driver."""
    bus, _, address = key.partition("/")
    if bus == "css":  # vfio_ccw makes them
        assert run(kernel, "bind", key).status == 0
    home = kernel.tree.homes[bus, address]
    kernel.tree.directory(f"{home}/{MDEV}/mdev_type")
    take = ("unbind", key) if bus == "css" else ("bind", address, "--allow", "mediated-devices")
    machine = FakeMachine(kernel)
    machine.held["/dev/vfio/44"] = [Holder(7, "qemu", 0)]
    refused = run_command(machine, *take, "-J")
    assert (refused.status, refused.json_error["code"]) == (6, "group-busy")
    assert refused.json_error["subject"] == MDEV and "process 7" in refused.json_error["message"]
    if bus == "pci":
        guarded = run(kernel, "bind", address, "-J")
        assert (guarded.status, guarded.json_error["code"]) == (5, "mediated-devices")
        assert MDEV in guarded.json_error["message"]
    assert run(kernel, *take).status == 0
    assert kernel.devices[address].driver == ("io_subchannel" if bus == "css" else "vfio-pci")


def test_what_cannot_be_reset_is_not_for_vfio_platform(kernel: FakeKernel) -> None:
    kernel.devices["fe000000.dma"].resettable = False
    before = state(kernel)
    refused = run(kernel, "bind", "platform/fe000000.dma", "-J")
    assert (refused.status, refused.json_error["errno"]) == (8, "ENOENT")
    assert "reset" in refused.json_error["message"]
    assert all(
        word in refused.json_error["hint"] for word in ("vfio-reset:", "_RST", "reset_required=0 is unsafe")
    )
    assert state(kernel) == before
    # With the device tree and the module loaded it is known before.
    home = kernel.tree.homes["platform", "fe000000.dma"]
    kernel.tree.put(f"{home}/of_node/compatible", "acme,dma-2\0acme,dma\0")
    kernel.tree.put("/sys/module/vfio_platform/parameters/reset_required", "Y\n")
    refused = run(kernel, "bind", "platform/fe000000.dma", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-reset")
    assert "acme,dma-2" in refused.json_error["message"]
    assert kernel.writes == []
    kernel.tree.put(
        f"/lib/modules/{kernel.release}/modules.builtin.modinfo",
        "vfio_platform_acme.license=GPL\0vfio_platform_acme.alias=vfio-reset:acme,dma-2\0",
    )
    kernel.devices["fe000000.dma"].resettable = True
    assert run(kernel, "bind", "platform/fe000000.dma").status == 0


def test_a_kernel_without_the_driver_of_the_bus(kernel: FakeKernel) -> None:
    del kernel.modules["vfio_platform"]
    before = state(kernel)
    refused = run(kernel, "bind", "platform/fe000000.dma", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-module")
    assert "vfio-platform" in refused.json_error["message"]
    assert kernel.writes == [] and state(kernel) == before


def test_the_driver_of_another_bus(kernel: FakeKernel) -> None:
    refused = run(kernel, "bind", "platform/fe000000.dma", "--driver", "vfio-pci", "-J")
    assert refused.status == 2
    assert "vfio-platform" in refused.json_error["hint"]
    assert run(kernel, "bind", NIC, "--driver", "vfio-amba").status == 2
    assert kernel.writes == []


def test_a_device_without_a_group_is_found_by_its_bus_only(kernel: FakeKernel) -> None:
    kernel.plug(device("platform", "pcspkr", None, "platform:pcspkr"))
    assert "pcspkr" not in run(kernel, "list-devices", "-n").stdout
    assert run(kernel, "show", "platform/pcspkr", "-P", "group", "--value").stdout == "-\n"
    assert run(kernel, "list-devices", "platform/pcspkr", "-n", "-o", "address").stdout == "pcspkr\n"
    for subject in ("platform/nothing", "nothing/pcspkr", "platform/.", "pcspkr"):
        assert run(kernel, "show", subject).status == 3
    refused = run(kernel, "bind", "platform/pcspkr", "-J")
    assert (refused.status, refused.json_error["code"]) == (3, "no-iommu-group")
    assert (
        run(kernel, "permit", "platform/pcspkr", "--mode", "600", "-J").json_error["code"] == "no-iommu-group"
    )
    assert kernel.writes == []


# --- variants -------------------------------------------------------------------------------------


def install_variant(kernel: FakeKernel, probe: int = 0) -> None:
    ids = (PciId(0x8086, 0x10D3),)
    kernel.install(
        MODULE,
        lambda: FakeDriver(VARIANT, variant_ids=ids, managed_dma=True, vfio=True, probe=lambda d: probe),
    )


def test_auto_takes_the_most_specific_driver(kernel: FakeKernel) -> None:
    install_variant(kernel)
    before = state(kernel)
    planned = run(kernel, "bind", NIC, "--driver", "auto", "--dry-run")
    assert planned.status == 0, planned.stderr
    assert "not loaded" in planned.stdout and f"modprobe {MODULE}" in planned.stdout
    assert all(line.startswith(("#", "modprobe ", "echo ")) for line in planned.stdout.splitlines())
    assert state(kernel) == before and VARIANT not in kernel.drivers
    bound = run(kernel, "bind", NIC, "--driver", "auto", "-J")
    assert bound.status == 0, bound.stderr
    assert bound.json["devices"][0]["driver"] == VARIANT
    assert "vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*" in bound.stderr and "most specific" in bound.stderr
    assert kernel.devices[ROLES["nic_b"]].driver == "e1000e", "override-only ids take nothing by themselves"
    planned = run(kernel, "bind", ROLES["nic_b"], "--driver", "auto", "--dry-run")
    assert "not loaded" not in planned.stdout and f"drivers/{VARIANT}/bind" in planned.stdout
    assert run(kernel, "unbind", NIC).status == 0
    assert state(kernel) == before


def test_auto_leaves_a_driver_that_offers_its_device_by_itself(kernel: FakeKernel) -> None:
    kernel.install("acme", lambda: FakeDriver("acme", (PciId(0x1234, 0x11E8),), vfio=True))
    kernel.load_module("acme")
    assert kernel.devices[ROLES["edu"]].driver == "acme"
    bound = run(kernel, "bind", ROLES["edu"], "--driver", "auto", "-J")
    assert bound.status == 0 and bound.json["changed"] is False
    assert "a driver of its own" in bound.stderr
    assert kernel.writes == []


def test_auto_without_a_variant(kernel: FakeKernel) -> None:
    install_variant(kernel)
    bound = run(kernel, "bind", ROLES["edu"], "--driver", "auto", "-J")
    assert bound.json["devices"][0]["driver"] == "vfio-pci"
    assert "there is no variant" in bound.stderr
    # A variant that is named is a VFIO driver: no guard stops it, nor is it a driver of the host's.
    kernel.load_module(MODULE)
    assert run(kernel, "bind", NIC, "--driver", VARIANT).status == 5, "no link to its module tells it"
    link = f"/sys/bus/pci/drivers/{VARIANT}/module"
    kernel.tree.link(link, f"/sys/module/{MODULE}")
    assert run(kernel, "bind", NIC, "--driver", VARIANT).status == 0
    assert run(kernel, "unbind", NIC, "--to", VARIANT).status == 2


def test_auto_before_variants(tmp_path: Path) -> None:
    kernel = boot(str(tmp_path), SMALL, release="5.10.0-1-amd64")
    bound = run(kernel, "bind", NIC, "--driver", "auto", "-J")
    assert bound.json["devices"][0]["driver"] == "vfio-pci"
    assert "no variant drivers" in bound.stderr


def test_auto_off_pci(kernel: FakeKernel) -> None:
    bound = run(kernel, "bind", "amba/9000000.pl011", NIC, "--driver", "auto", "-J")
    assert [record["driver"] for record in bound.json["devices"]] == ["vfio-pci", "vfio-amba"]


def test_from_a_variant_to_the_plain_driver_the_home_is_kept(kernel: FakeKernel) -> None:
    install_variant(kernel)
    before = state(kernel)
    assert run(kernel, "bind", NIC, "--driver", "auto").status == 0
    kernel.tree.link(f"/sys/bus/pci/drivers/{VARIANT}/module", f"/sys/module/{MODULE}")
    assert run(kernel, "bind", NIC, "--driver", "vfio-pci").status == 0
    assert run(kernel, "unbind", NIC).status == 0
    assert state(kernel) == before


def test_a_refusal_comes_before_the_variant_is_loaded(kernel: FakeKernel) -> None:
    install_variant(kernel)
    refused = run(kernel, "bind", NIC, ROLES["port_a"], "--driver", "auto", "-J")
    assert (refused.status, refused.json_error["code"]) == (5, "bridge")
    assert VARIANT not in kernel.drivers


def test_a_variant_that_refuses(kernel: FakeKernel) -> None:
    install_variant(kernel, errno.ETIMEDOUT)
    before = state(kernel)
    refused = run(kernel, "bind", NIC, "--driver", "auto", "-J")
    assert (refused.status, refused.json_error["errno"]) == (8, "ETIMEDOUT")
    assert "--driver vfio-pci" in refused.json_error["hint"] and "migration" in refused.json_error["hint"]
    assert state(kernel) == before
    assert run(kernel, "bind", NIC, "--driver", "vfio-pci").status == 0


def test_a_device_that_could_be_shared(kernel: FakeKernel) -> None:
    home = kernel.tree.homes["pci", NIC]
    kernel.tree.directory(f"{home}/mdev_supported_types/acme-1")
    assert "mediated devices" in run(kernel, "bind", NIC, "--dry-run").stderr
    kernel.tree.remove(f"{home}/mdev_supported_types")
    kernel.tree.put(f"{home}/nvidia/creatable_vgpu_types", "")
    assert "nvidia/current_vgpu_type" in run(kernel, "bind", NIC).stderr
    assert "nvidia" not in run(kernel, "bind", NIC).stderr, "it is with VFIO already"


def test_a_variant_that_cannot_be_loaded(kernel: FakeKernel) -> None:
    install_variant(kernel)
    del kernel.modules[MODULE]
    refused = run(kernel, "bind", NIC, "--driver", "auto", "-J")
    assert (refused.status, refused.json_error["code"]) == (7, "no-module")
    assert "--driver vfio-pci" in refused.json_error["hint"]
    assert kernel.writes == []
