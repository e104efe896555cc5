"""The list of what the looking commands read. It is a list of what is wanted, never of what is not: whatever it does
not name stays where it is. tests/host/test_extent.py holds it against what the commands really open.

A pattern is a path below /, with * and ? in its parts, and {a,b} for either. A directory is taken with those of its
entries that a pattern names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

#: Where the devices are that can be asked about; the devices of another bus that are in no group stay unseen.
DEVICES = (
    "sys/bus/{pci,platform,amba,fsl-mc,cdx,css,ccw,ap,mdev}/devices/*",
    "sys/kernel/iommu_groups/*/devices/*",
)
#: What is read below the directory of each.
OF_A_DEVICE = (
    "{modalias,driver,driver_override,subsystem,iommu_group,iommu,physfn,virtfn*,vfio-dev,vfio-dev/*,mdev_type}",
    "{revision,class,vendor,config,resource,removable,boot_vga,reset,reset_method,power_state,d3cold_allowed}",
    "{current_link_speed,current_link_width,max_link_speed,max_link_width,numa_node,sriov_numvfs,sriov_totalvfs}",
    "{aer_dev_*,aer_rootport_total_err_*,of_node,of_node/external-facing}",
    "{power/runtime_status,driver/module,iommu/device,iommu/device/driver,net,net/*,pci*:*}",
)
#: What wakes a function that sleeps, and is left alone then (vfioctl.host.topology.sleeps).
WAKING = frozenset({"config", "current_link_speed", "current_link_width", "max_link_speed", "max_link_width"})
#: That they are there is enough: they are not read.
NAMES = ("sys/*/reset", "sys/firmware/acpi/tables/*", "proc/spl/kstat/zfs/*", "dev/*")
HOST = (
    "sys/kernel/iommu_groups",
    "sys/kernel/iommu_groups/*/{name,type,reserved_regions,devices}",
    "sys/class/iommu/*",
    "sys/module/{vfio*,iommufd}",
    "sys/module/{vfio*,iommufd}/{initstate,parameters/*}",
    "sys/firmware/acpi/tables/*",
    "dev/iommu",
    "dev/vfio/*",
    "dev/vfio/devices/*",
    "proc/cmdline",
    "proc/interrupts",
    "proc/sys/kernel/{osrelease,arch}",
    "lib/modules/*/{modules.alias,modules.builtin.modinfo,modules.builtin,modules.dep}",
    # Whether the host is ready.
    "proc/sys/kernel/tainted",
    "sys/kernel/security/lockdown",
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    "{etc,run,usr/local/lib,usr/lib,lib}/modprobe.d/*.conf",
    "boot/config-*",
    "sys/kernel/mm/hugepages/*/{nr_hugepages,free_hugepages}",
    # What devices are used for, and who claims them.
    "sys/class/block/*",
    "sys/class/block/*/{dev,partition,hidden,bcache,dm/name,loop/backing_file,holders,holders/*}",
    "sys/class/nvme-subsystem/*",
    "sys/class/nvme-subsystem/*/nvme*",
    "sys/fs/btrfs/*/devices/*",
    "sys/fs/bcachefs/*/dev-*/block",
    "proc/{swaps,self/mountinfo,1/mountinfo}",
    "proc/spl/kstat/zfs/*",
    "run/udev/data/b*:*",
    "sys/class/net/*",
    "sys/class/net/*/{flags,uevent,master,upper_*}",
    "proc/net/{route,ipv6_route,fib_trie,if_inet6}",
    "sys/class/graphics/*",
    "sys/class/graphics/*/{name,device}",
    "sys/class/vtconsole/*",
    "sys/class/vtconsole/*/{name,bind}",
    "proc/iomem",
    "proc/bus/input/devices",
    "etc/driverctl.d/*",
    "run/libvirt/{qemu,lxc}",
    "run/libvirt/{qemu,lxc}/*.xml",
    "run/qemu-server/pci-id-reservations",
)


def expanded(pattern: str) -> Iterator[list[str]]:
    """The patterns without braces that a pattern stands for, as parts of a path."""
    pieces = [piece.split(",") for piece in re.split(r"[{}]", pattern)]
    pieces[::2] = [[",".join(piece)] for piece in pieces[::2]]
    for choice in itertools.product(*pieces):
        yield "".join(choice).split("/")
