"""The errnos that Linux is known to answer with have words of their own, and the evidence is what the state knows.

The list was made from the kernel's sources and from runs (Linux 5.10 to 7.3). It leaves out what a caller meets only
by a fault of its own: a struct that is too small (EINVAL, E2BIG), an unknown flag (EOPNOTSUPP), a pointer to nowhere
(EFAULT), an answer that is asked for again with more room (ENOSPC of GET_PCI_HOT_RESET_INFO, EMSGSIZE of IOVA_RANGES);
and the calls that vfioctl does not make (IOEVENTFD, GFX_PLANE, nested page tables, the type of a group).
"""

from __future__ import annotations

import errno

import pytest

from tests.policy.test_refusals import DEVICE, GROUP, SET_CONTAINER, blocked, direct, here, limited
from vfioctl.errors import VfioctlError
from vfioctl.model import Evidence, Look
from vfioctl.policy.refusals import ON_SPAPR, TABLE, State, explain

KNOWN = """
open-container                      ENOENT ENODEV ENXIO EACCES EPERM EMFILE
open-group                          ENOENT ENODEV ENXIO EACCES EPERM EBUSY EMFILE
open-device                         ENOENT ENODEV ENXIO EACCES EPERM EMFILE
open-iommufd                        ENOENT ENODEV ENXIO EACCES EPERM EMFILE
VFIO_GROUP_GET_STATUS               ENODEV
VFIO_GROUP_SET_CONTAINER            EBADF EBADFD EINVAL EPERM EBUSY ENODEV ENOMEM EFAULT
VFIO_GROUP_UNSET_CONTAINER          EINVAL EBUSY ENODEV
VFIO_GROUP_GET_DEVICE_FD            ENODEV EINVAL EACCES EPERM EBUSY EAGAIN EIO ENOMEM EMFILE
VFIO_SET_IOMMU                      EINVAL ENODEV EPERM EBUSY ENOMEM EFAULT
VFIO_IOMMU_GET_INFO                 EINVAL ENOTTY
VFIO_IOMMU_MAP_DMA                  EINVAL EOVERFLOW EEXIST ENOSPC ENOMEM EFAULT EBUSY ENOENT ENOTTY
VFIO_IOMMU_UNMAP_DMA                EINVAL EOVERFLOW EBUSY ENOENT ENOTTY
VFIO_IOMMU_DIRTY_PAGES              EACCES EINVAL ENOTTY
VFIO_IOMMU_SPAPR_TCE_GET_INFO       ENXIO EINVAL
VFIO_IOMMU_ENABLE                   EBUSY ENODEV EPERM ENOMEM ENOTTY
VFIO_IOMMU_DISABLE                  ENOTTY
VFIO_IOMMU_SPAPR_REGISTER_MEMORY    EBUSY EINVAL ENOMEM EPERM EFAULT ENOTTY
VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY  ENOENT EBUSY EINVAL EPERM ENOTTY
VFIO_IOMMU_SPAPR_TCE_CREATE         EINVAL ENOSPC EPERM ENOMEM ENXIO ENOTTY
VFIO_IOMMU_SPAPR_TCE_REMOVE         EINVAL EPERM ENXIO ENOTTY
VFIO_EEH_PE_OP                      ENODEV EINVAL ENOTTY EPERM
VFIO_DEVICE_GET_INFO                EINVAL EIO
VFIO_DEVICE_GET_REGION_INFO         EINVAL EIO
VFIO_DEVICE_GET_IRQ_INFO            EINVAL EIO
VFIO_DEVICE_SET_IRQS                EINVAL ENOTTY EBUSY ENOSPC EBADF EIO
VFIO_DEVICE_RESET                   EINVAL EAGAIN ENOTTY EIO
VFIO_DEVICE_FEATURE                 ENOTTY EINVAL EIO
VFIO_DEVICE_GET_PCI_HOT_RESET_INFO  ENODEV EAGAIN EPERM EIO
VFIO_DEVICE_PCI_HOT_RESET           EINVAL EBADF ENODEV EBUSY EAGAIN ENOTTY EIO
VFIO_DEVICE_BIND_IOMMUFD            EINVAL EBUSY EBADF EBADFD EPERM EACCES E2BIG ENOTTY
VFIO_DEVICE_ATTACH_IOMMUFD_PT       ENOENT EINVAL EADDRINUSE ENOMEM EBUSY EOPNOTSUPP ENOTTY
IOMMU_DESTROY                       ENOENT EBUSY
IOMMU_IOAS_IOVA_RANGES              ENOENT
IOMMU_IOAS_ALLOW_IOVAS              EADDRINUSE EINVAL ENOENT
IOMMU_IOAS_MAP                      EEXIST EINVAL EOVERFLOW EFAULT ENOMEM ENOSPC ENOENT
IOMMU_IOAS_MAP_FILE                 EBADF EINVAL EOVERFLOW ENOTTY
IOMMU_IOAS_COPY                     ENOENT EPERM EEXIST EINVAL ENOSPC EOVERFLOW
IOMMU_IOAS_UNMAP                    ENOENT EINVAL EBUSY EDEADLOCK
IOMMU_OPTION                        EPERM EBUSY
IOMMU_VFIO_IOAS                     ENODEV ENOENT
IOMMU_GET_HW_INFO                   ENOENT EOPNOTSUPP ENOTTY
IOMMU_HWPT_ALLOC                    EOPNOTSUPP EINVAL ENOENT ENODEV ENOTTY
IOMMU_HWPT_SET_DIRTY_TRACKING       EOPNOTSUPP ENOENT ENOTTY
IOMMU_HWPT_GET_DIRTY_BITMAP         EOPNOTSUPP EINVAL ENOENT ENOTTY
IOMMU_IOAS_CHANGE_PROCESS           EINVAL EBUSY ENOTTY
write-bind                          ENODEV EBUSY EINVAL EAGAIN ENOENT
write-unbind                        ENODEV
write-drivers_probe                 ENODEV EINVAL
write-driver_override               EINVAL
write-new_id                        EINVAL EEXIST ENOMEM
write-remove_id                     ENODEV
write-sriov_numvfs                  EINVAL ERANGE ENOENT EBUSY ENOMEM ENOSPC EPERM
write-reset                         EINVAL ENOTTY EAGAIN
write-reset_method                  EINVAL
write-create                        EINVAL EEXIST EUSERS ENODEV ENOSPC
write-remove                        ENODEV EAGAIN
"""

#: With sPAPR, besides.
KNOWN_ON_SPAPR = """
VFIO_GROUP_SET_CONTAINER            EBUSY EPERM
VFIO_SET_IOMMU                      EBUSY EPERM EINVAL
VFIO_IOMMU_MAP_DMA                  EPERM ENXIO EINVAL
VFIO_IOMMU_UNMAP_DMA                EPERM ENXIO EINVAL
"""


def pairs(known: str) -> set[tuple[str, int]]:
    lines = (line.split() for line in known.strip().splitlines())
    return {(call.replace("-", " "), getattr(errno, name)) for call, *names in lines for name in names}


def test_every_known_errno_has_words() -> None:
    assert len(pairs(KNOWN)) > 200
    assert pairs(KNOWN) - set(TABLE) == set()
    assert pairs(KNOWN_ON_SPAPR) - set(ON_SPAPR) == set()


def test_the_last_meaning_applies_always_and_no_other() -> None:
    for meanings in (*TABLE.values(), *ON_SPAPR.values()):
        assert [meaning.when is None for meaning in meanings] == [False] * (len(meanings) - 1) + [True]


def evidence(error: VfioctlError) -> list[tuple[str, str]]:
    return [(each["file"], each["value"]) for each in error.details.get("evidence", ())]


GROUP_26 = "/sys/kernel/iommu_groups/26"
LIMITS = [
    ("/proc/self/limits", "Max locked memory 8388608 bytes"),
    ("/proc/self/status", "VmLck 1024 kB"),
]
OWNED = here._replace(node_owner="0:0", node_mode="0600")
HELD = here._replace(holders=("qemu (42)",), seen=(Evidence(GROUP, "open in qemu (42)"),))


@pytest.mark.parametrize(
    ("call", "name", "state", "path", "expected"),
    [
        (SET_CONTAINER, "EPERM", blocked, None, [(f"{GROUP_26}/devices/0000:06:0d.1/driver", "snd_emu10k1")]),
        ("open", "EACCES", OWNED, GROUP, [(GROUP, "owner 0:0, mode 0600")]),
        ("open", "EBUSY", HELD, GROUP, [(GROUP, "open in qemu (42)")]),
        ("VFIO_IOMMU_MAP_DMA", "ENOMEM", limited, None, LIMITS),
        (
            "IOMMU_IOAS_MAP",
            "ENOMEM",
            limited._replace(per_user=True),
            None,
            [LIMITS[0], ("/proc/*/status", "VmPin 1024 kB of all processes of the user")],
        ),
        (
            "VFIO_IOMMU_MAP_DMA",
            "ENOMEM",
            limited._replace(process=42),
            None,
            [(file.replace("self", "42"), value) for file, value in LIMITS],
        ),
        (DEVICE, "EAGAIN", here, None, []),
    ],
)
def test_evidence_is_what_the_state_knows(
    call: str, name: str, state: State, path: str | None, expected: list[tuple[str, str]]
) -> None:
    assert evidence(explain(call, getattr(errno, name), state, path)) == expected


@pytest.mark.parametrize(
    ("call", "name", "state", "look"),
    [
        (SET_CONTAINER, "EINVAL", direct, Look(f"{GROUP_26}/reserved_regions", " direct$")),
        (
            "VFIO_SET_IOMMU",
            "EPERM",
            here,
            Look("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"),
        ),
        (
            "VFIO_DEVICE_BIND_IOMMUFD",
            "EPERM",
            here._replace(interrupts_isolated=False),
            Look("/sys/module/iommufd/parameters/allow_unsafe_interrupts"),
        ),
        (
            "VFIO_IOMMU_MAP_DMA",
            "ENOSPC",
            here,
            Look("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"),
        ),
    ],
)
def test_what_it_does_not_know_is_looked_at(call: str, name: str, state: State, look: Look) -> None:
    def read(asked: Look) -> list[Evidence]:
        assert asked == look
        return [Evidence(asked.file, "N")]

    error = explain(call, getattr(errno, name), state, None, read)
    assert evidence(error) == [(look.file, "N")]
    assert "evidence" not in explain(call, getattr(errno, name), state).details
