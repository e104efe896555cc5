"""Every refusal the kernel is known to give has a status, a stable code, a cause and a cure."""

from __future__ import annotations

import errno

import pytest

from vfioctl.errors import ExitStatus, VfioctlError
from vfioctl.policy.refusals import TABLE, State, explain

GROUP = "/dev/vfio/26"
CONTAINER = "/dev/vfio/vfio"
SET_CONTAINER = "VFIO_GROUP_SET_CONTAINER"
MAP = "VFIO_IOMMU_MAP_DMA"
DEVICE = "VFIO_GROUP_GET_DEVICE_FD"

here = State(group=26, kernel=(6, 12))
blocked = here._replace(viable=False, blocking=(("0000:06:0d.1", "snd_emu10k1"),))
direct = here._replace(viable=True, direct_region=True)
fitting = here._replace(viable=True, direct_region=False, container_set=False)
limited = here._replace(size=16 << 20, memlock_limit=8 << 20, memlock_locked=1 << 20)

#: call, errno, state, path, status, code, words of the message, words of the hint
ROWS = [
    ("open", "ENOENT", here, GROUP, 1, "no-vfio-member", "bound to a VFIO driver", "vfioctl bind --group 26"),
    ("open", "EACCES", here, GROUP, 4, "permission", GROUP, "vfioctl permit 26 --user NAME"),
    ("open", "EPERM", here, GROUP, 4, "permission", GROUP, "cgroup"),
    ("open", "EPERM", here._replace(noiommu=True), GROUP, 4, "permission", "CAP_SYS_RAWIO", "root"),
    ("open", "EBUSY", here, GROUP, 6, "group-busy", "group 26 is in use", "vfioctl holders 26"),
    ("open", "EBUSY", here._replace(holders=("qemu (42)",)), GROUP, 6, "group-busy", "qemu (42)", "one user"),
    ("open", "EMFILE", here, GROUP, 7, "too-many-files", "too many files", "ulimit -n"),
    ("open", "ENODEV", here, GROUP, 1, "no-vfio-member", "left", "vfioctl bind"),
    ("open", "ENXIO", here, GROUP, 1, "no-vfio-member", "left", "vfioctl bind"),
    ("open", "ENOENT", State(), CONTAINER, 7, "no-vfio-module", CONTAINER, "modprobe vfio-pci"),
    ("open", "ENODEV", State(), CONTAINER, 7, "no-vfio-module", CONTAINER, "modprobe vfio-pci"),
    ("open", "EACCES", State(), CONTAINER, 4, "permission", CONTAINER, "chmod 0666"),
    ("VFIO_GROUP_GET_STATUS", "ENODEV", here, None, 1, "no-vfio-member", "left", "vfioctl bind"),
    (
        SET_CONTAINER,
        "EPERM",
        blocked,
        None,
        1,
        "not-viable",
        "0000:06:0d.1 (snd_emu10k1)",
        "vfioctl bind --group 26",
    ),
    (
        SET_CONTAINER,
        "EPERM",
        here,
        None,
        1,
        "not-viable",
        "group 26 is not viable",
        "vfioctl check-viable 26",
    ),
    (SET_CONTAINER, "EPERM", direct, None, 7, "direct-region", "1:1", "RMRR"),
    (SET_CONTAINER, "EPERM", blocked._replace(direct_region=True), None, 1, "not-viable", "viable", "bind"),
    (SET_CONTAINER, "EPERM", here._replace(noiommu=True), None, 4, "permission", "CAP_SYS_RAWIO", "root"),
    (SET_CONTAINER, "EINVAL", direct, None, 7, "direct-region", "1:1", "reserved_regions"),
    (SET_CONTAINER, "EINVAL", here._replace(container_set=True), None, 6, "group-busy", "already", "close"),
    (SET_CONTAINER, "EINVAL", here, None, 7, "kernel", "or the firmware", "reserved_regions"),
    (SET_CONTAINER, "EINVAL", fitting, None, 7, "kernel", "does not suit this container", "of its own"),
    (SET_CONTAINER, "EFAULT", here, None, 7, "memory-not-pinnable", "cannot be pinned", "memfd"),
    (SET_CONTAINER, "EBUSY", here, None, 6, "group-busy", "another IOMMU domain", "let it go"),
    (SET_CONTAINER, "ENODEV", here, None, 1, "no-vfio-member", "left", "bind"),
    (SET_CONTAINER, "EBADF", here, None, 7, "kernel", "not a VFIO container", "/sys/class/misc"),
    (SET_CONTAINER, "EBADFD", here, None, 7, "kernel", "not a VFIO container", "/sys/class/misc"),
    ("VFIO_GROUP_UNSET_CONTAINER", "EBUSY", here, None, 6, "group-busy", "open", "close the device"),
    ("VFIO_GROUP_UNSET_CONTAINER", "EINVAL", here, None, 7, "kernel", "no container", "nothing"),
    (
        "VFIO_SET_IOMMU",
        "EPERM",
        here,
        None,
        7,
        "interrupts-not-isolated",
        "interrupts",
        "allow_unsafe_interrupts",
    ),
    ("VFIO_SET_IOMMU", "EPERM", direct._replace(kernel=(5, 10)), None, 7, "direct-region", "1:1", "RMRR"),
    ("VFIO_SET_IOMMU", "EPERM", direct, None, 7, "interrupts-not-isolated", "interrupts", "remapping"),
    (
        "VFIO_SET_IOMMU",
        "ENODEV",
        here,
        None,
        7,
        "no-iommu-backend",
        "no IOMMU backend",
        "modprobe vfio_iommu_type1",
    ),
    ("VFIO_SET_IOMMU", "ENODEV", here._replace(noiommu=True), None, 7, "no-iommu", "no IOMMU", "physical"),
    ("VFIO_SET_IOMMU", "EINVAL", here, None, 7, "kernel", "cannot share", "container per group"),
    ("VFIO_SET_IOMMU", "EBUSY", here, None, 6, "group-busy", "another IOMMU domain", "let it go"),
    ("VFIO_SET_IOMMU", "ENOMEM", here, None, 7, "no-memory", "page tables", "memory"),
    (
        MAP,
        "ENOMEM",
        limited,
        None,
        7,
        "memlock",
        "the limit is 8M, 1M are locked, 17M are needed",
        "ulimit -l 17408",
    ),
    (
        MAP,
        "ENOMEM",
        limited,
        None,
        7,
        "memlock",
        "16M cannot be pinned",
        "prlimit --pid PID --memlock=17825792",
    ),
    (MAP, "ENOMEM", limited, None, 7, "memlock", "may not lock", "LimitMEMLOCK=17825792"),
    (
        MAP,
        "ENOMEM",
        limited._replace(user="eve"),
        None,
        7,
        "memlock",
        "lock",
        "'eve - memlock 17408' in /etc/sec",
    ),
    (
        MAP,
        "ENOMEM",
        limited._replace(wanted=32 << 20),
        None,
        7,
        "memlock",
        "32M cannot be pinned",
        "ulimit -l 33792",
    ),
    (
        MAP,
        "ENOMEM",
        limited._replace(memlock_limit=None),
        None,
        7,
        "no-memory",
        "not enough memory for 16M",
        "free",
    ),
    (MAP, "ENOMEM", limited._replace(size=4096), None, 7, "no-memory", "not enough memory for 4K", "free"),
    (MAP, "ENOMEM", here, None, 7, "memlock", "the memory cannot be pinned", "ulimit -l"),
    (MAP, "ENOSPC", here, None, 7, "no-entries-left", "no more mappings", "dma_entry_limit"),
    (
        MAP,
        "EEXIST",
        here._replace(iova=0x1000, size=4096),
        None,
        7,
        "mapping-overlap",
        "0x1000-0x1fff",
        "unmap",
    ),
    (
        MAP,
        "EINVAL",
        here._replace(page_size=65536),
        None,
        7,
        "iova-out-of-range",
        "64K",
        "vfioctl iommu-info --attach 26",
    ),
    (MAP, "EOVERFLOW", here, None, 7, "iova-out-of-range", "ranges", "vfioctl iommu-info --attach 26"),
    (MAP, "EFAULT", here, None, 7, "memory-not-pinnable", "cannot be pinned", "memfd"),
    (
        MAP,
        "EFAULT",
        here._replace(file_system="ext4"),
        None,
        7,
        "memory-not-pinnable",
        "it is on ext4",
        "/dev/shm",
    ),
    ("madvise", "EFAULT", here, None, 7, "memory-gone", "has become shorter", "unmap it"),
    ("read", "EIO", here, None, 7, "memory-gone", "has become shorter", "unmap it"),
    ("write", "EIO", here, None, 7, "memory-gone", "--prot r", "the file itself"),
    (MAP, "EBUSY", here._replace(iova=4096), None, 7, "kernel", "0x1000", "kernel log"),
    (MAP, "ENOTTY", here, None, 7, "no-iommu", "no IOMMU", "physical addresses"),
    ("VFIO_IOMMU_UNMAP_DMA", "EINVAL", here, None, 7, "unmap-partial", "cut a mapping", "exactly"),
    (DEVICE, "EINVAL", here, None, 7, "kernel", "no container", "order"),
    (DEVICE, "EINVAL", blocked, None, 1, "not-viable", "0000:06:0d.1", "bind"),
    (
        DEVICE,
        "ENODEV",
        here._replace(device="0000:06:0d.0"),
        None,
        3,
        "not-found",
        "0000:06:0d.0",
        "list-devices",
    ),
    (DEVICE, "EACCES", here, None, 4, "permission", "VF token", "--vf-token UUID"),
    (DEVICE, "EAGAIN", here, None, 6, "busy", "reset or bound", "again"),
    (DEVICE, "EPERM", blocked, None, 1, "not-viable", "0000:06:0d.1", "bind"),
    (
        DEVICE,
        "EPERM",
        here._replace(interrupts_isolated=False),
        None,
        7,
        "interrupts-not-isolated",
        "forge",
        "unsafe",
    ),
    (DEVICE, "EPERM", here, None, 1, "not-viable", "not viable", "bind"),
    ("VFIO_GET_API_VERSION", "ENOTTY", State(), None, 7, "no-vfio-module", "does not answer", "modprobe"),
    ("mmap", "ENOMEM", here._replace(size=1 << 40), None, 7, "no-memory", "1T", "less"),
    ("madvise", "ENOMEM", here._replace(size=1 << 40), None, 7, "no-memory", "1T", "less"),
]


@pytest.mark.parametrize(
    ("call", "name", "state", "path", "status", "code", "message", "hint"),
    ROWS,
    ids=[f"{row[0]}-{row[1]}-{row[5]}" for row in ROWS],
)
def test_refusal(
    call: str, name: str, state: State, path: str | None, status: int, code: str, message: str, hint: str
) -> None:
    error = explain(call, getattr(errno, name), state, path)
    assert (error.status, error.code, error.errno_name) == (ExitStatus(status), code, name)
    assert message in error.message
    assert error.hint is not None
    assert hint in error.hint
    assert error.subject == (None if state.group is None else "26")


def test_every_refusal_of_a_node_has_a_row() -> None:
    tested = set()
    for call, name, _, path, *_ in ROWS:
        kind = "" if call != "open" else " container" if path == CONTAINER else " group"
        tested.add((call + kind, getattr(errno, name)))
    nodes = {each for each in TABLE if each[0] in ("open container", "open group")}
    assert nodes - tested == {
        ("open container", number) for number in (errno.ENXIO, errno.EPERM, errno.EMFILE)
    }


@pytest.mark.parametrize(("call", "number"), TABLE)
@pytest.mark.parametrize("state", [State(), here, blocked, direct, limited])
def test_any_state_will_do(call: str, number: int, state: State) -> None:
    error = explain(*(("open", number) if call.startswith("open") else (call, number)), state, GROUP)
    assert isinstance(error, VfioctlError)
    assert error.message and error.hint
    assert "None" not in error.message + error.hint


def test_ownership_of_the_node() -> None:
    error = explain(
        "open", errno.EACCES, here._replace(node_owner="root:root", node_mode="0600", user="eve"), GROUP
    )
    assert error.message == "user eve may not open /dev/vfio/26 (owner root:root, mode 0600)"
    assert error.hint == "as root: vfioctl permit 26 --user eve"


def test_anything_unknown_keeps_its_name() -> None:
    error = explain("VFIO_SET_IOMMU", errno.EXDEV, here)
    assert (error.status, error.code) == (ExitStatus.KERNEL, "kernel")
    assert error.message == "VFIO_SET_IOMMU failed for group 26: EXDEV (Invalid cross-device link)"
    assert explain("open", errno.ENFILE, here, GROUP).message.startswith(
        "open /dev/vfio/26 failed for group 26: ENFILE"
    )
