"""Refusals to bind and unbind a device, to steer it, and to add ids to a driver (floor 3, pure).

Source: drivers/base/bus.c, drivers/base/dd.c, drivers/pci/pci-driver.c, drivers/vfio/vfio_main.c,
drivers/vfio/pci/vfio_pci.c and vfio_pci_core.c, and runs on real kernels. Calls are ``write FILE``, and where one
driver alone means something else ``write FILE DRIVER``.
"""

from __future__ import annotations

import errno

from vfioctl.errors import Busy, NotFound
from vfioctl.model import Look
from vfioctl.policy.refusals import evidence
from vfioctl.policy.refusals.state import Refusal
from vfioctl.policy.refusals.words import Table, When, only, says

#: Devices that vfio-pci leaves alone unless it is loaded with disable_denylist=1: QuickAssist, whose users could bring
#: the machine down, and DSA and IAX (drivers/vfio/pci/vfio_pci.c, vfio_pci_dev_in_denylist).
DENYLIST = frozenset(
    f"8086:{device}" for device in ("0435", "0443", "19e2", "19e3", "37c8", "37c9", "0b25", "0cfe")
)


def _is_bridge(refusal: Refusal) -> bool:
    about = refusal.state.about
    return refusal.of_vfio and about is not None and about.is_bridge


def _is_ungrouped(refusal: Refusal) -> bool:
    about = refusal.state.about
    grouped = about is None or about.group is not None
    return refusal.of_vfio and not grouped and refusal.is_off("vfio.enable_unsafe_noiommu_mode")


def _is_denied(refusal: Refusal) -> bool:
    about, driver = refusal.state.about, refusal.state.driver
    if about is None or about.pci is None or driver != "vfio-pci":
        return False
    if not refusal.is_off("vfio_pci.disable_denylist"):
        return False
    return f"{about.pci.vendor}:{about.pci.device}" in DENYLIST


def _has_driver(refusal: Refusal) -> bool:
    return refusal.state.about is not None and refusal.state.about.driver is not None


def _is_steered(refusal: Refusal) -> bool:
    about = refusal.state.about
    return about is not None and about.driver_override not in (None, refusal.state.driver)


_BRIDGE = When("it is a PCI bridge", _is_bridge)
_UNGROUPED = When("it is in no IOMMU group", _is_ungrouped)
_DENIED = When("it is on the denylist", _is_denied)
_BOUND = When("it has a driver", _has_driver)
_STEERED = When("its driver_override names another driver", _is_steered)
_GONE = When("it is not there any more", lambda refusal: refusal.state.gone)
_IN_USE = When(
    "somebody has its group open",
    lambda refusal: not refusal.of_vfio and bool(refusal.state.holders),
)
_HELD = When("somebody has its group open", lambda refusal: bool(refusal.state.holders))
_WITH_VFS = When("it has virtual functions", lambda refusal: refusal.of_vfio and bool(refusal.state.numvfs))
_OF_VFIO = When("the driver is one of VFIO's", lambda refusal: refusal.of_vfio)
_NOT_REGISTERED = When("the driver is not there", lambda refusal: refusal.state.registered is False)
_BEFORE_5_14 = When("Linux is older than 5.14", lambda refusal: refusal.before(5, 14))
_gone = says(
    "{device} is gone",
    code="no-such-device",
    hint="it was unplugged or removed meanwhile: vfioctl list-devices shows what is there",
    kind=NotFound,
    when=_GONE,
)
_in_use = says(
    "the kernel gives {device} to no host driver while its IOMMU group is in use through VFIO{holders}",
    code="group-busy",
    hint="end the user of the group first: vfioctl holders {DEVICE}",
    kind=Busy,
    look=evidence.HELD_NODES,
)
_virtual_functions = says(
    "{device} has {numvfs}virtual functions enabled, and {driver} takes no device that has any",
    code="virtual-functions",
    hint="bind its host driver again, and then: echo 0 > {sysfs}/sriov_numvfs",
    kind=Busy,
    look=evidence.NUMVFS,
    when=_WITH_VFS,
)
#: What VFIO's drivers refuse, whatever the errno is.
_unfit = (
    says(
        "{device} is a bridge, and {driver} takes none",
        code="bridge",
        hint="bind the devices behind it; a bridge that blocks its group: vfioctl unbind --leave-unbound {DEVICE}",
        look=evidence.CLASS,
        when=_BRIDGE,
    )
    + says(
        "{device} is in no IOMMU group, and without one {driver} takes it in no-IOMMU mode only",
        code="no-iommu-group",
        hint="turn the IOMMU on; vfioctl list-groups says why when there are no groups at all",
        look=evidence.IOMMU_GROUP,
        when=_UNGROUPED,
    )
    + says(
        "{device} ({ids}) is on the denylist of {driver}: its users could bring the machine down",
        code="denylisted",
        hint="at your own risk: a line 'options vfio-pci disable_denylist=1' in /etc/modprobe.d, and load vfio-pci"
        " again (where it is built in: vfio-pci.disable_denylist=1 on the kernel's command line)",
        look=(*evidence.IDS, Look("/sys/module/vfio_pci/parameters/disable_denylist")),
        when=_DENIED,
    )
)
_no_memory = says(
    "the kernel has no memory left for {device}", code="no-memory", hint="free memory, then try again"
)
vanished = says(
    "{device} is not there any more, or its driver has no such file",
    code="no-such-device",
    hint="vfioctl list-devices shows what is there",
    kind=NotFound,
)
REFUSALS: Table = {
    ("write bind", errno.EBUSY): says(
        "{driver} cannot have {device}: {bound} has it",
        code="busy",
        hint="take it away from that one first: vfioctl unbind --leave-unbound {DEVICE}",
        kind=Busy,
        look=evidence.DRIVER,
        when=_BOUND,
    )
    + _virtual_functions
    + only(_IN_USE, _in_use)
    + says(
        "{driver} cannot have {device}: its IOMMU group is in use through VFIO, or the driver finds it in use",
        code="busy",
        hint="end the user of the group: vfioctl holders {DEVICE}; the kernel log (dmesg) may say more{or_plain}",
        kind=Busy,
    ),
    ("write bind", errno.EINVAL): _unfit
    + says(
        # 5.19 and newer; POWER promises them from 6.4 on only (device_iommu_capable).
        "{driver} refuses {device}: its IOMMU does not promise coherent caches (on POWER from Linux 6.4 on), or the"
        " driver finds it unfit",
        code="kernel",
        hint="the kernel log (dmesg) names the reason; such an IOMMU cannot be used with VFIO{or_plain}",
        when=_OF_VFIO,
    )
    + says(
        "{driver} refuses {device}",
        code="kernel",
        hint="the kernel log says why (dmesg); another driver may fit: --to NAME",
    ),
    # On 5.12 and older every failure is ENODEV.
    ("write bind", errno.ENODEV): _gone
    + says(
        "{driver} may not have {device}, whose driver_override names {override}",
        code="kernel",
        hint="vfioctl bind --driver {DRIVER} {DEVICE} sets it; echo > {sysfs}/driver_override takes it away",
        look=evidence.OVERRIDE,
        when=_STEERED,
    )
    + _unfit
    + _virtual_functions
    + says(
        "{driver} does not take {device}: up to Linux 5.12 the kernel says no more than that",
        code="kernel",
        hint="the kernel log (dmesg) has the errno: 'probe of ... failed with error'",
        when=_BEFORE_5_14,
    )
    + says(
        "{driver} does not take {device}: it has no matching id, or its probe found no such hardware",
        code="kernel",
        hint="the kernel log says why (dmesg); another driver may fit: --driver NAME, --to NAME{or_plain}",
        look=evidence.IDS,
    ),
    ("write bind", errno.EAGAIN): says(
        "{driver} puts off {device} until something that it depends on is there",
        code="kernel",
        hint="load the missing driver (the kernel log names it), then try again{or_plain}",
    ),
    ("write bind", errno.ENOENT): says(
        "{driver} is not registered on the bus of {device}",
        code="no-driver",
        hint="load its module: modprobe {DRIVER}",
        when=_NOT_REGISTERED,
    )
    + says(
        "{driver} misses something that it needs for {device}",
        code="kernel",
        hint="the kernel log says what is missing (dmesg): firmware, or another driver{or_plain}",
    ),
    ("write bind vfio-platform", errno.ENOENT): says(
        "vfio-platform takes no device that it cannot reset, and has found no way to reset {device}",
        code="no-reset",
        hint="it takes a module with the alias vfio-reset:COMPATIBLE (what of_node/compatible says), or with ACPI a"
        " method _RST; the module parameter vfio_platform.reset_required=0 is unsafe: the device keeps what its user"
        " before has left in it",
        look=(
            Look("{sysfs}/of_node/compatible"),
            Look("/sys/module/vfio_platform/parameters/reset_required"),
        ),
    ),
    ("write bind", errno.EIO): says(
        "{device} does not answer {driver}",
        code="device-dead",
        hint="the kernel log (dmesg) says more; the slot or the machine may have to be switched off and on{or_plain}",
    ),
    ("write bind", errno.ENOMEM): _no_memory,
    ("write bind", errno.EOPNOTSUPP): says(
        "{driver} cannot do with {device} what it is for",
        code="not-supported",
        hint="the kernel log (dmesg) says what is missing: firmware, or the driver of its physical function{or_plain}",
    ),
    ("write unbind", errno.ENODEV): _gone
    + says(
        "{device} is not bound to {driver} any more: it has {bound}",
        code="kernel",
        hint="somebody else moved it meanwhile: look again with vfioctl show {DEVICE}",
        look=evidence.DRIVER,
        when=_BOUND,
    )
    + says(
        "{device} is not bound to {driver} any more",
        code="kernel",
        hint="somebody else moved it meanwhile: look again with vfioctl show {DEVICE}",
    ),
    ("write unbind", errno.ENOENT): says(
        "{driver} is not there any more",
        code="no-driver",
        hint="its module was unloaded meanwhile: look again with vfioctl show {DEVICE}",
    ),
    ("write driver_override", errno.ENOENT): _gone
    + says(
        "the bus of {device} has no driver_override",
        code="not-supported",
        hint="without it a device cannot be steered: its driver is what the kernel picks",
    ),
    ("write driver_override", errno.ENODEV): vanished,
    ("write driver_override", errno.EINVAL): says(
        "the kernel takes no driver's name of that length",
        code="kernel",
        hint="give the name of a driver: ls /sys/bus/*/drivers",
    ),
    ("write drivers_probe", errno.EINVAL): only(_HELD, _in_use)
    + says(
        "the kernel does not look for a driver for {device}: its IOMMU group is in use through VFIO",
        code="group-busy",
        hint="end the user of the group first: vfioctl holders {DEVICE}",
        kind=Busy,
    ),
    ("write drivers_probe", errno.ENODEV): vanished,
    ("write new_id", errno.EINVAL): says(
        "{driver} does not accept the id {data}",
        code="kernel",
        hint="ids are VENDOR DEVICE in hexadecimal digits, and for VFIO without driver data; the default method"
        " (driver_override) takes none",
    ),
    ("write new_id", errno.EEXIST): says(
        "{driver} knows the id {data} already", code="kernel", hint="there is nothing to do"
    ),
    ("write new_id", errno.ENOENT): says(
        "{driver} is no PCI driver that is there, or it takes no dynamic ids",
        code="no-driver",
        hint="modprobe {DRIVER}; or use the default method (driver_override)",
    ),
    ("write new_id", errno.ENOMEM): _no_memory,
    ("write remove_id", errno.ENODEV): says(
        "{driver} does not have the id {data}",
        code="kernel",
        hint="somebody else has taken it away: there is nothing to do",
    ),
    ("write remove_id", errno.ENOENT): says(
        "{driver} is not there any more", code="no-driver", hint="its ids have gone with it"
    ),
}
