"""What a refused write to sysfs means, in the state in which it was refused; and nodes and modules that are refused."""

from __future__ import annotations

import errno
import os

import pytest

from vfioctl.errors import ExitStatus, VfioctlError
from vfioctl.model import Device, Evidence, PciIds
from vfioctl.policy.refusals import TABLE, State, explain_access, explain_module, explain_write

ADDRESS = "0000:06:0d.0"
TOP = f"/sys/bus/pci/devices/{ADDRESS}"


def ids(class_: str = "040100", vendor: str = "1102", device: str = "0002") -> PciIds:
    return PciIds(class_, vendor, device, "1102", "8027")


card = Device(ADDRESS, "pci", 26, ids())
loose = Device(ADDRESS, "pci", None, ids())
bridge = Device(ADDRESS, "pci", 26, ids("060400"))
accelerator = Device(ADDRESS, "pci", 26, ids("0b4000", "8086", "37c8"))
here = State(device=ADDRESS, about=card, kernel=(6, 12), registered=True, switched_on=frozenset())
ALL_ON = frozenset({"vfio.enable_unsafe_noiommu_mode", "vfio_pci.disable_denylist"})
held = here._replace(
    holders=("qemu (process 42, uid 0)",),
    seen=(Evidence("/dev/vfio/26", "open in qemu (process 42, uid 0)"),),
)
old = here._replace(kernel=(5, 10))


def refused(
    file: str, name: str, state: State, driver: str | None = "vfio-pci", data: str = "a"
) -> VfioctlError:
    top = f"/sys/bus/pci/drivers/{driver}" if file in ("bind", "unbind", "new_id", "remove_id") else TOP
    return explain_write(f"{top}/{file}", data, getattr(errno, name), state._replace(driver=driver))


def seen(error: VfioctlError) -> dict[str, str]:
    return {each["file"]: each["value"] for each in error.details.get("evidence", ())}


#: file, errno, state, driver; status, code, words of the message, words of the hint; a file that proves it, its value
ROWS: list[tuple[str, str, State, str | None, int, str, str, str, str | None, str | None]] = [
    ("bind", "EINVAL", here._replace(about=bridge), "vfio-pci",
     7, "bridge", "is a bridge", "behind it", f"{TOP}/class", "0x060400"),
    ("bind", "EINVAL", here._replace(about=loose), "vfio-pci",
     7, "no-iommu-group", "is in no IOMMU group", "list-groups", f"{TOP}/iommu_group", "not there"),
    ("bind", "EINVAL", here._replace(about=loose, switched_on=ALL_ON), "vfio-pci",
     7, "kernel", "coherent caches", "dmesg", None, None),
    ("bind", "EINVAL", here._replace(about=accelerator), "vfio-pci",
     7, "denylisted", "(8086:37c8) is on the denylist", "disable_denylist=1", f"{TOP}/device", "0x37c8"),
    ("bind", "EINVAL", here._replace(about=accelerator, switched_on=ALL_ON), "vfio-pci",
     7, "kernel", "coherent caches", "dmesg", None, None),
    ("bind", "EINVAL", here._replace(about=accelerator), "qat_vfio_pci",
     7, "kernel", "coherent caches", "--driver vfio-pci", None, None),
    ("bind", "EINVAL", here, "vfio-pci", 7, "kernel", "coherent caches", "dmesg", None, None),
    ("bind", "EINVAL", here._replace(about=bridge), "shpchp", 7, "kernel", "shpchp refuses", "--to", None, None),
    ("bind", "EBUSY", here._replace(about=card._replace(driver="nvme")), "vfio-pci",
     6, "busy", "nvme has it", "unbind --leave-unbound", f"{TOP}/driver", "nvme"),
    ("bind", "EBUSY", here._replace(numvfs=2), "vfio-pci",
     6, "virtual-functions", "has 2 virtual functions", "echo 0 >", f"{TOP}/sriov_numvfs", "2"),
    ("bind", "EBUSY", held, "snd_emu10k1",
     6, "group-busy", "VFIO: qemu (process 42, uid 0)", f"vfioctl holders {ADDRESS}",
     "/dev/vfio/26", "open in qemu (process 42, uid 0)"),
    ("bind", "EBUSY", held, "vfio-pci", 6, "busy", "or the driver finds", "holders", None, None),
    ("bind", "EBUSY", here, "nvme", 6, "busy", "or the driver finds", "holders", None, None),
    ("bind", "ENODEV", here._replace(gone=True, about=None), "vfio-pci",
     3, "no-such-device", "is gone", "list-devices", None, None),
    ("bind", "ENODEV", here._replace(about=card._replace(driver_override="none")), "nvme",
     7, "kernel", "driver_override names none", "driver_override", f"{TOP}/driver_override", "none"),
    ("bind", "ENODEV", old._replace(about=bridge), "vfio-pci",
     7, "bridge", "is a bridge", "behind it", f"{TOP}/class", "0x060400"),
    ("bind", "ENODEV", old, "vfio-pci", 7, "kernel", "up to Linux 5.12", "probe of", None, None),
    ("bind", "ENODEV", here, "nvme", 7, "kernel", "no matching id", "--to NAME", f"{TOP}/vendor", "0x1102"),
    ("bind", "EAGAIN", here, "nvme", 7, "kernel", "puts off", "again", None, None),
    ("bind", "ENOENT", here._replace(registered=False), "nvme",
     7, "no-driver", "is not registered", "modprobe nvme", None, None),
    ("bind", "ENOENT", here, "nvme", 7, "kernel", "misses something", "firmware", None, None),
    ("bind", "ENOENT", here, "vfio-platform", 7, "no-reset", "no way to reset", "vfio-reset:", None, None),
    ("bind", "EIO", here, "nvme", 7, "device-dead", "does not answer", "switched off", None, None),
    ("bind", "ENOMEM", here, "nvme", 7, "no-memory", "no memory", "free", None, None),
    ("bind", "EOPNOTSUPP", here, "mlx5_vfio_pci", 7, "not-supported", "cannot do", "--driver vfio-pci", None, None),
    ("bind", "EXDEV", here, "nvme", 7, "kernel", "Invalid cross-device link", "dmesg", None, None),
    ("unbind", "ENODEV", here._replace(about=card._replace(driver="nvme")), "vfio-pci",
     7, "kernel", "it has nvme", "look again", f"{TOP}/driver", "nvme"),
    ("unbind", "ENODEV", here, "vfio-pci", 7, "kernel", "any more", "look again", None, None),
    ("unbind", "ENODEV", here._replace(gone=True), "vfio-pci", 3, "no-such-device", "gone", "list-devices", None, None),
    ("unbind", "ENOENT", here, "vfio-pci", 7, "no-driver", "not there any more", "look again", None, None),
    ("driver_override", "ENOENT", here._replace(gone=True), None,
     3, "no-such-device", "gone", "list-devices", None, None),
    ("driver_override", "ENOENT", here, None, 7, "not-supported", "no driver_override", "steered", None, None),
    ("driver_override", "ENODEV", here, None, 3, "no-such-device", "not there", "list-devices", None, None),
    ("driver_override", "EINVAL", here, None, 7, "kernel", "of that length", "name of a driver", None, None),
    ("drivers_probe", "EINVAL", held, None,
     6, "group-busy", "qemu (process 42", "holders", "/dev/vfio/26", "open in qemu (process 42, uid 0)"),
    ("drivers_probe", "EINVAL", here, None, 6, "group-busy", "in use through VFIO", "holders", None, None),
    ("drivers_probe", "ENODEV", here, None, 3, "no-such-device", "not there", "list-devices", None, None),
    ("new_id", "EINVAL", here, "vfio-pci", 7, "kernel", "the id 'a'", "hexadecimal", None, None),
    ("new_id", "EEXIST", here, "vfio-pci", 7, "kernel", "already", "nothing", None, None),
    ("new_id", "ENOENT", here, "vfio-pci", 7, "no-driver", "no PCI driver", "modprobe vfio-pci", None, None),
    ("new_id", "ENOMEM", here, "vfio-pci", 7, "no-memory", "no memory", "free", None, None),
    ("remove_id", "ENODEV", here, "vfio-pci", 7, "kernel", "does not have the id 'a'", "nothing", None, None),
    ("remove_id", "ENOENT", here, "vfio-pci", 7, "no-driver", "not there any more", "gone with it", None, None),
    ("sriov_numvfs", "EINVAL", here, None, 7, "kernel", "'a' is no number", "sriov_totalvfs", None, None),
    ("sriov_numvfs", "ERANGE", here, None, 7, "kernel", "that many", f"{TOP}/sriov_totalvfs", None, None),
    ("sriov_numvfs", "ENOENT", here, None, 7, "no-driver", "has no driver", "unbind", None, None),
    ("sriov_numvfs", "ENOENT", here._replace(about=card._replace(driver="vfio-pci")), None,
     7, "not-supported", "vfio-pci makes no", "enable_sriov", f"{TOP}/driver", "vfio-pci"),
    ("sriov_numvfs", "ENOENT", here._replace(about=card._replace(driver="e1000")), None,
     7, "not-supported", "e1000 makes no", "another driver", f"{TOP}/driver", "e1000"),
    ("sriov_numvfs", "EBUSY", here._replace(numvfs=2), None,
     6, "virtual-functions", "has 2 virtual functions already", "echo 0", f"{TOP}/sriov_numvfs", "2"),
    ("sriov_numvfs", "ENOMEM", here, None, 7, "no-room", "no room", "pci=realloc", None, None),
    ("sriov_numvfs", "ENOSPC", here, None, 7, "no-room", "no room", "pci=realloc", None, None),
    ("sriov_numvfs", "EPERM", here, None, 7, "not-supported", "may not have", "setup", None, None),
    ("reset", "EINVAL", here, None, 7, "kernel", "writing 1", "echo 1", None, None),
    ("reset", "ENOTTY", here, None, 7, "no-reset", "no method left", "default", None, None),
    ("reset", "ENOENT", here, None, 7, "no-reset", "no way", "slot or bus", None, None),
    ("reset", "EAGAIN", here, None, 6, "busy", "locked", "again", None, None),
    ("reset_method", "EINVAL", here, None, 7, "no-reset", "that method", "default", None, None),
    ("remove", "ENODEV", here, None, 3, "no-such-device", "not there", "list-devices", None, None),
    ("remove", "ENOENT", here, None, 3, "no-such-device", "not there", "list-devices", None, None),
    ("remove", "EAGAIN", here, None, 6, "busy", "still being made", "again", None, None),
    ("create", "EINVAL", here, None, 7, "kernel", "'a' is no UUID", "uuidgen", None, None),
    ("create", "EEXIST", here, None, 7, "kernel", "already", "uuidgen", None, None),
    ("create", "EUSERS", here, None, 7, "no-room", "no more mediated", "available_instances", None, None),
    ("create", "ENOSPC", here, None, 7, "no-room", "no more mediated", "available_instances", None, None),
    ("create", "ENODEV", here, None, 3, "no-such-device", "leaving", "mdev_bus", None, None),
    ("bind", "EACCES", here, "vfio-pci", 4, "permission", "/bind may not be written", "as root", None, None),
    ("driver_override", "EPERM", here, None, 4, "permission", "whatever its mode", "lockdown", None, None),
    ("unbind", "EROFS", here, "vfio-pci", 4, "permission", "read-only", "container", None, None),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join([*row[:2], str(row[3]), row[5]]))
def test_refusal(row: tuple[str, str, State, str | None, int, str, str, str, str | None, str | None]) -> None:
    file, name, state, driver, status, code, message, hint, proof, value = row
    error = refused(file, name, state, driver)
    assert (error.status, error.code, error.errno_name) == (ExitStatus(status), code, name)
    assert message in error.message
    assert hint in (error.hint or "")
    assert error.subject == ADDRESS
    assert "None" not in error.message + (error.hint or "")
    assert "{" not in error.message + (error.hint or "")
    if proof is not None:
        assert seen(error)[proof] == value
    else:
        assert set(seen(error)) <= {f"{TOP}/vendor", f"{TOP}/device"}


def test_every_write_has_a_row() -> None:
    tested = {(f"write {file}", getattr(errno, name)) for file, name, *_ in ROWS}
    writes = {each for each in TABLE if each[0].startswith("write ")}
    assert writes - tested == {
        ("write bind vfio-platform", errno.ENOENT),
        *(("write to sysfs", number) for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
    }


def test_nothing_is_guessed_where_nothing_is_known() -> None:
    """Without a look at the device it is not called a bridge, ungrouped, on a list or gone."""
    for call, number in TABLE:
        if call == "write bind":
            error = explain_write("/sys/bus/pci/drivers/vfio-pci/bind", "x", number, State(driver="vfio-pci"))
            assert error.code in ("kernel", "busy", "device-dead", "no-memory", "not-supported")


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EAGAIN, errno.EXDEV])
def test_without_a_variant_there_is_the_plain_driver(number: int) -> None:
    for driver, offered in (
        ("mlx5_vfio_pci", True),
        ("xe-vfio-pci", True),
        ("vfio-pci", False),
        ("nvme", False),
    ):
        error = refused("bind", errno.errorcode[number], here, driver)
        assert ("--driver vfio-pci" in (error.hint or "")) == offered


@pytest.mark.parametrize(
    ("name", "status", "code", "hint"),
    [
        ("EPERM", 4, "permission", "CAP_CHOWN"),
        ("EACCES", 4, "permission", "directory above"),
        ("EROFS", 4, "permission", "container"),
        ("ENOENT", 3, "not-found", "list-groups"),
        ("EOPNOTSUPP", 7, "not-supported", "--group-owner"),
        ("EINVAL", 7, "kernel", "id NAME"),
        ("EIO", 7, "kernel", "dmesg"),
    ],
)
def test_a_node_that_is_not_given_its_owner(name: str, status: int, code: str, hint: str) -> None:
    error = explain_access("/dev/vfio/26", getattr(errno, name), State())
    assert (error.status, error.code, error.errno_name) == (ExitStatus(status), code, name)
    assert "/dev/vfio/26" in error.message and hint in (error.hint or "")
    assert error.subject == "/dev/vfio/26"


@pytest.mark.parametrize(
    ("words", "name", "code", "hint"),
    [
        (
            "modprobe: FATAL: Module x not found in directory /lib/modules/6.1",
            "ENOENT",
            "no-module",
            "boot it",
        ),
        (
            "modprobe: ERROR: could not insert 'x': Operation not permitted",
            "EPERM",
            "no-module",
            "modules_disabled",
        ),
        ("modprobe: ERROR: could not insert 'x': Invalid argument", "EINVAL", "no-module", "--showconfig"),
        ("modprobe: ERROR: could not insert 'x': No such device", "ENODEV", "no-module", "this machine"),
        ("modprobe: ERROR: could not insert 'x': Exec format error", "ENOEXEC", "no-module", "vermagic"),
        (
            f"could not insert 'x': {os.strerror(errno.EKEYREJECTED)}",
            "EKEYREJECTED",
            "no-module",
            "Secure Boot",
        ),
        (f"could not insert 'x': {os.strerror(errno.ENOKEY)}", "ENOKEY", "no-module", "Secure Boot"),
        (
            "modprobe: ERROR: could not insert 'x': Cannot allocate memory",
            "ENOMEM",
            "no-memory",
            "free memory",
        ),
    ],
)
def test_a_module_that_is_not_loaded(words: str, name: str, code: str, hint: str) -> None:
    error = explain_module("x", words)
    assert error is not None
    assert (error.status, error.code, error.errno_name) == (ExitStatus.KERNEL, code, name)
    assert error.message == f"module x cannot be loaded: {words}"
    assert hint in (error.hint or "") and error.subject == "x"


def test_other_words_of_modprobe_are_left_to_it() -> None:
    assert explain_module("x", "modprobe: FATAL: something new") is None


def test_what_is_not_known_is_read() -> None:
    asked = []

    def read(look: object) -> list[Evidence]:
        asked.append(look)
        return [Evidence("/sys/module/vfio_pci/parameters/disable_denylist", "N")]

    state = here._replace(about=accelerator, driver="vfio-pci")
    error = explain_write("/sys/bus/pci/drivers/vfio-pci/bind", ADDRESS, errno.EINVAL, state, read)
    assert len(asked) == 1
    assert seen(error) == {
        f"{TOP}/vendor": "0x8086",
        f"{TOP}/device": "0x37c8",
        "/sys/module/vfio_pci/parameters/disable_denylist": "N",
    }
