"""The files that prove what a refusal means, and what they say as far as that is known already (floor 3, pure)."""

from __future__ import annotations

from vfioctl.model import Evidence, Look
from vfioctl.policy.refusals.state import Refusal

_GROUP = "/sys/kernel/iommu_groups/{GROUP}"

NODE = (Look("{path}", access=True),)
#: Not read: what holds a node is known or not.
HELD = (Look("{path}"),)
HELD_NODES = (Look("/dev/vfio/*"),)
MEMBERS = (Look(_GROUP + "/devices/*/driver"),)
DIRECT = (Look(_GROUP + "/reserved_regions", " direct$"),)
RESERVED = (Look(_GROUP + "/reserved_regions"),)
UNSAFE_INTERRUPTS = (Look("/sys/module/{claimer}/parameters/allow_unsafe_interrupts"),)
ENTRY_LIMIT = (Look("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"),)
MEMLOCK = (
    Look("/proc/{process}/limits", "^Max locked memory"),
    Look("/proc/{processes}/status", "^Vm(Lck|Pin)"),
)
DRIVER = (Look("{sysfs}/driver"),)
OVERRIDE = (Look("{sysfs}/driver_override"),)
CLASS = (Look("{sysfs}/class"),)
IOMMU_GROUP = (Look("{sysfs}/iommu_group"), Look("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"))
IDS = (Look("{sysfs}/vendor"), Look("{sysfs}/device"))
NUMVFS = (Look("{sysfs}/sriov_numvfs"),)
TOTALVFS = (Look("{sysfs}/sriov_totalvfs"),)
RESET_METHOD = (Look("{sysfs}/reset_method"),)


def known(refusal: Refusal) -> list[Evidence]:
    """What the state of a refusal says of files already; it need not be read again."""
    state = refusal.state
    found = [
        Evidence(f"/sys/kernel/iommu_groups/{state.group}/devices/{address}/driver", driver)
        for address, driver in state.blocking
    ]
    if state.node_owner and state.node_mode and refusal.path:
        found.append(Evidence(refusal.path, f"owner {state.node_owner}, mode {state.node_mode}"))
    found += state.seen
    process = "self" if state.process is None else str(state.process)
    if state.memlock_limit is not None:
        found.append(Evidence(f"/proc/{process}/limits", f"Max locked memory {state.memlock_limit} bytes"))
    if state.memlock_locked is not None:
        locked = state.memlock_locked >> 10
        found.append(
            Evidence("/proc/*/status", f"VmPin {locked} kB of all processes of the user")
            if state.per_user
            else Evidence(f"/proc/{process}/status", f"VmLck {locked} kB")
        )
    about = state.about
    if about is not None:
        top = f"/sys/bus/{about.bus}/devices/{about.address}"
        facts = {
            "driver": about.driver,
            "driver_override": about.driver_override,
            "iommu_group": "not there" if about.group is None else str(about.group),
            "sriov_numvfs": None if state.numvfs is None else str(state.numvfs),
        }
        if about.pci is not None:
            ids = {"class": about.pci.class_, "vendor": about.pci.vendor, "device": about.pci.device}
            facts |= {name: f"0x{value}" for name, value in ids.items()}
        found += [Evidence(f"{top}/{name}", value) for name, value in facts.items() if value is not None]
    return found
