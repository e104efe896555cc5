"""The command tree as data: importing it imports no command, so that --help and TAB stay fast."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A command: its one-line help, its section, and the module ``vfioctl.cli.commands.<module>``
    whose ``command`` it is. A name of two words is a verb of a family."""

    module: str
    help: str
    section: str


LOOK, ASSIGN, DMA, DEVICE = "Look", "Assign", "DMA", "Device"

COMMANDS: dict[str, Entry] = {
    "list-groups": Entry("list_groups", "List IOMMU groups and whether they are viable.", LOOK),
    "list-devices": Entry("list_devices", "List devices with their group, ids and driver.", LOOK),
    "show": Entry("show", "Show everything known of a group or a device.", LOOK),
    "tree": Entry("tree", "Draw the PCI topology with groups, drivers and ACS.", LOOK),
    "check-viable": Entry("check_viable", "Say whether groups are viable, and why not.", LOOK),
    "explain": Entry("explain", "Explain why devices share a group, and what would separate them.", LOOK),
    "impact": Entry("impact", "Show what the host would lose with devices.", LOOK),
    "holders": Entry("holders", "Show which processes hold devices.", LOOK),
    "snapshot": Entry("snapshot", "Write an archive to look at elsewhere with --root.", LOOK),
    "doctor": Entry("doctor", "Say whether the host is ready for VFIO, and what to do.", LOOK),
    "watch": Entry("watch", "Follow what happens to devices, groups and nodes.", LOOK),
    "wait": Entry("wait", "Wait for a node, viability, a driver, release, coming, going.", LOOK),
    "bind": Entry("bind", "Bind devices or whole groups to a VFIO driver.", ASSIGN),
    "unbind": Entry("unbind", "Give devices back to their host driver.", ASSIGN),
    "run": Entry("run", "Lend devices to a command, run as an unprivileged user.", ASSIGN),
    "recover": Entry("recover", "Put back what an interrupted change left behind.", ASSIGN),
    "permit": Entry("permit", "Let a user or group open the device nodes.", ASSIGN),
    "revoke": Entry("revoke", "Make the device nodes root's alone again.", ASSIGN),
    "iommu-info": Entry("iommu_info", "Show what the IOMMU of a group can do.", DMA),
    "container open": Entry("container.open", "Open a container and keep it open.", DMA),
    "container list": Entry("container.list", "List the open containers.", DMA),
    "container show": Entry("container.show", "Show everything known of an open container.", DMA),
    "container add": Entry("container.add", "Put more groups into a container.", DMA),
    "container remove": Entry("container.remove", "Take groups out of a container.", DMA),
    "container exec": Entry("container.exec", "Hand a container's descriptors to a program.", DMA),
    "container close": Entry("container.close", "Close a container.", DMA),
    "ioas create": Entry("ioas.create", "Make another address space in a container (iommufd).", DMA),
    "ioas copy": Entry("ioas.copy", "Map in it what is mapped in the container.", DMA),
    "ioas attach": Entry("ioas.attach", "Let a device use another address space.", DMA),
    "ioas detach": Entry("ioas.detach", "Take a device out of its address space.", DMA),
    "ioas allow": Entry("ioas.allow", "Promise to map in certain ranges only.", DMA),
    "ioas destroy": Entry("ioas.destroy", "Destroy an address space.", DMA),
    "dirty start": Entry("dirty.start", "Begin to note which pages devices write.", DMA),
    "dirty read": Entry("dirty.read", "Show which pages devices have written.", DMA),
    "dirty stop": Entry("dirty.stop", "End noting them.", DMA),
    "window create": Entry("window.create", "Make a window of addresses (POWER).", DMA),
    "window remove": Entry("window.remove", "Remove a window.", DMA),
    "eeh state": Entry("eeh.state", "Show whether EEH has frozen a group.", DMA),
    "eeh enable": Entry("eeh.enable", "Let EEH watch a group.", DMA),
    "eeh disable": Entry("eeh.disable", "End that.", DMA),
    "eeh unfreeze": Entry("eeh.unfreeze", "Let a frozen group work again.", DMA),
    "eeh reset": Entry("eeh.reset", "Reset a group.", DMA),
    "eeh configure": Entry("eeh.configure", "Set up a group's bridges after a reset.", DMA),
    "eeh inject": Entry("eeh.inject", "Let a PCI error happen.", DMA),
    "map": Entry("map", "Map memory for devices, or prove that groups can.", DMA),
    "unmap": Entry("unmap", "Unmap memory of an open container.", DMA),
    "memory read": Entry("memory.read", "Read the bytes of mapped memory.", DMA),
    "memory write": Entry("memory.write", "Write bytes into mapped memory.", DMA),
    "memory list": Entry("memory.list", "List what is mapped, and what is charged for it.", DMA),
    "selftest": Entry("selftest", "Try the whole way to a device, a verdict a step.", DEVICE),
    "reset": Entry("reset", "Reset a device, or its slot or bus; show what that would reach.", DEVICE),
    "region list": Entry("region.list", "List the regions of a device.", DEVICE),
    "region read": Entry("region.read", "Read a region: registers, configuration space.", DEVICE),
    "region write": Entry("region.write", "Write to a region.", DEVICE),
    "region dump": Entry("region.dump", "Show or save all of a region; decode configuration space.", DEVICE),
    "irq list": Entry("irq.list", "List the interrupts of a device.", DEVICE),
    "irq enable": Entry("irq.enable", "Let an interrupt signal.", DEVICE),
    "irq disable": Entry("irq.disable", "Take an interrupt down.", DEVICE),
    "irq mask": Entry("irq.mask", "Let an interrupt wait.", DEVICE),
    "irq unmask": Entry("irq.unmask", "Let a masked interrupt signal again.", DEVICE),
    "irq test": Entry("irq.test", "Prove the way of an interrupt by a loopback.", DEVICE),
    "irq wait": Entry("irq.wait", "Wait for an interrupt.", DEVICE),
}

#: What the verbs of a family have in common, in a line.
FAMILIES: dict[str, str] = {
    "container": "Keep containers open between commands.",
    "memory": "Look at and change the memory that is mapped in an open container.",
    "ioas": "Several address spaces in one container (iommufd).",
    "window": "Windows of addresses of a container (POWER, spapr-v2).",
    "eeh": "Extended error handling of POWER: freeze, reset, recover.",
    "dirty": "Which pages devices write.",
    "irq": "The interrupts of a device: INTx, MSI, MSI-X, errors, the host's request.",
    "region": "The regions of a device: BARs, ROM, configuration space.",
}


def children(family: str) -> dict[str, str]:
    """The words that may follow ``vfioctl`` (family ""), or the name of a family; with their help."""
    if family:
        return {
            name.removeprefix(f"{family} "): entry.help
            for name, entry in COMMANDS.items()
            if name.startswith(f"{family} ")
        }
    first = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
    return {name: FAMILIES.get(name) or COMMANDS[name].help for name in first}


def section_of(name: str) -> str:
    """The section of a word that may follow ``vfioctl``."""
    return next(entry.section for key, entry in COMMANDS.items() if key.partition(" ")[0] == name)
