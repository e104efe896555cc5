"""Which secrets the files of a snapshot may have, file by file."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from vfioctl.policy.redaction.tokens import Tokens

#: Parts of paths that are the same on many hosts.
_COMMON = frozenset(
    {
        "bin", "boot", "btrfs", "containers", "cgroup", "data", "debug", "dev", "devices", "disk", "docker",
        "efi", "etc", "firmware", "fs", "home", "hugepages", "images", "iommu", "kernel", "kvm", "lib",
        "lib64", "libvirt", "local", "lock", "log", "lxc", "lxd", "machines", "mapper", "md", "media", "misc",
        "mnt", "modules", "mqueue", "net", "opt", "overlay", "pci", "pool", "pools", "proc", "pstore", "pts",
        "qemu", "root", "run", "security", "shm", "snap", "srv", "storage", "sys", "sysroot", "system",
        "systemd", "tmp", "tracing", "udev", "user", "usr", "var", "vm", "volumes",
    }
)  # fmt: skip
#: Parameters of the kernel whose values say something of devices and nothing of people; with * and ?.
_PARAMETERS = (
    "iommu", "iommu.*", "intel_iommu", "amd_iommu", "amd_iommu_dump", "arm-smmu*", "intremap", "vfio*", "vfio*.*",
    "pci", "pci*", "pcie_*", "kvm*.*", "hugepages", "hugepagesz", "default_hugepagesz", "hugetlb*", "console",
    "mitigations", "isolcpus", "nohz*", "rcu_nocbs", "efi", "acpi*", "noapic", "nox2apic", "lockdown", "lsm", "video",
    "modprobe.blacklist", "module_blacklist", "rd.driver.*", "*.blacklist", "softdep", "initcall_blacklist", "memmap",
    "efifb", "vga", "vt.*", "i915.*", "xe.*", "nouveau.*", "amdgpu.*", "nvme*.*", "xen-pciback.*", "cma", "swiotlb",
    "init_on_alloc", "panic", "loglevel", "debug", "earlycon", "earlyprintk", "mem", "maxcpus", "nr_cpus", "nosmt",
)  # fmt: skip
_FLAGS = re.compile(r"[A-Za-z_][\w.-]*")
#: The extended capability "device serial number" (PCI Express base specification, 7.9.3).
_EXTENDED, _SERIAL_NUMBER = 0x100, 0x0003


class Files:
    """``disks`` are the names of block devices: a path below /dev that names one says nothing. ``byteorder``: that of
    the host, in which the kernel prints IPv4 addresses."""

    def __init__(
        self, tokens: Tokens, disks: Collection[str], byteorder: Literal["little", "big"] = "little"
    ) -> None:
        self._tokens = tokens
        self._byteorder = byteorder
        self._disks = disks
        self._redactions: Mapping[str, Callable[[str], str]] = {
            "proc/cmdline": self._command_line,
            "proc/*/mountinfo": self._mounts,
            "proc/swaps": self._swaps,
            "proc/net/route": self._routes,
            "proc/net/ipv6_route": self._routes6,
            "proc/net/if_inet6": self._addresses6,
            "proc/net/fib_trie": self._trie,
            "proc/bus/input/devices": tokens.prose,
            "run/udev/data/*": self._label,
            "*/modprobe.d/*": self._configuration,
            "sys/*/dm/name": tokens.name,
            "sys/*/loop/backing_file": self._place,
        }

    def path(self, path: str) -> str:
        """The path of a member."""
        directory, _, name = path.rpartition("/")
        if path.startswith("dev/") and not path.startswith("dev/vfio/"):
            return self._node(f"/{path}")[1:]
        if directory in ("run/libvirt/qemu", "run/libvirt/lxc"):
            return f"{directory}/{self._tokens.name(name.removesuffix('.xml'))}.xml"
        if directory == "proc/spl/kstat/zfs":
            return f"{directory}/{self._tokens.name(name)}"
        return self._tokens.text(path)

    def target(self, path: str, target: str) -> str:
        """The target of a link; a mark (a link to itself) stays one."""
        if target == path.rpartition("/")[2]:
            return self.path(path).rpartition("/")[2]
        return self._tokens.text(target)

    def data(self, path: str, data: bytes) -> bytes:
        """The contents of a file."""
        if path.endswith("/config"):
            return self._config(data)
        text = data.decode(errors="surrogateescape")
        for pattern, redaction in self._redactions.items():
            if fnmatch.fnmatchcase(path, pattern):
                stripped = text.rstrip("\n")
                text = redaction(stripped) + text[len(stripped) :]
                return text.encode(errors="surrogateescape")
        return self._tokens.text(text).encode(errors="surrogateescape")

    def _command_line(self, text: str) -> str:
        kernels, dashes, inits = text.partition(" -- ")
        words = " ".join(map(self._parameter, kernels.split(" ")))
        return words + dashes + " ".join(map(self._tokens.name, inits.split(" ")))

    def _parameter(self, word: str) -> str:
        name, equals, value = word.partition("=")
        if not word or (not equals and _FLAGS.fullmatch(name)):
            return self._tokens.prose(word)
        if _FLAGS.fullmatch(name) and any(fnmatch.fnmatchcase(name, known) for known in _PARAMETERS):
            return self._tokens.prose(word)
        return f"{name if _FLAGS.fullmatch(name) else 'parameter'}={self._tokens.name(value or name)}"

    def _mounts(self, text: str) -> str:
        return "\n".join(map(self._mount, text.split("\n")))

    def _mount(self, line: str) -> str:
        """A line of mountinfo (proc_pid_mountinfo(5)); one of another form goes."""
        fields = line.split(" ")
        if len(fields) < 10 or "-" not in fields[6:]:
            return ""
        end = fields.index("-", 6)
        type_, source, *options = fields[end + 1 :]
        before = [*fields[:3], self._place(fields[3]), self._place(fields[4]), *fields[5:end]]
        shown = [self._option(option) for option in " ".join(options).split(",")]
        return " ".join([*before, "-", type_, self._source(type_, source), ",".join(shown)])

    def _source(self, type_: str, source: str) -> str:
        if source in (type_, "none", "udev", "cgroup", "cgroup2", "rootfs", "devtmpfs"):
            return source
        if type_ == "zfs":  # POOL/SET
            return "/".join(map(self._tokens.name, source.split("/")))
        return (
            ":".join(map(self._node, source.split(":")))
            if source.startswith("/dev/")
            else self._tokens.name(source)
        )

    def _option(self, option: str) -> str:
        name, equals, value = option.partition("=")
        if not equals:
            return self._tokens.prose(name)
        return f"{name}={self._node(value) if value.startswith('/dev/') else self._tokens.name(value)}"

    def _swaps(self, text: str) -> str:
        lines = text.split("\n")
        found = [line.partition(" ") for line in lines[1:]]
        return "\n".join([lines[0], *(f"{self._place(path)} {rest}" for path, _, rest in found)])

    def _place(self, path: str) -> str:
        """A path with those of its parts that are the same everywhere."""
        if path.startswith("/dev/"):
            return self._node(path)
        return "/".join(
            part if part in _COMMON or not part else self._tokens.name(part) for part in path.split("/")
        )

    def _node(self, path: str) -> str:
        """A path below /dev: names of disks stay; a file that is mounted by loop has "(deleted)" behind it."""
        known = ("", "dev", "mapper", "disk", "md", "zvol", "block", "iommu", "root", "by-id", "by-uuid", "by-label",
                 "by-partuuid", "by-partlabel", "by-path")  # fmt: skip
        return "/".join(
            part if part in known or part in self._disks else self._tokens.name(part)
            for part in path.split("/")
        )

    def _label(self, text: str) -> str:
        return re.sub(
            "^(E:ID_FS_LABEL=)(.*)$",
            lambda line: line[1] + self._tokens.name(line[2]),
            text,
            flags=re.MULTILINE,
        )

    def _configuration(self, text: str) -> str:
        """Without what people have written in comments; the number of lines stays."""
        return re.sub("^([ \\t]*#).*$", r"\1", self._tokens.prose(text), flags=re.MULTILINE)

    def _routes(self, text: str) -> str:
        lines = text.split("\n")
        return "\n".join([self._tokens.text(lines[0]), *map(self._route, lines[1:])])

    def _route(self, line: str) -> str:
        """Iface Destination Gateway Flags RefCnt Use Metric Mask ..., numbers in the machine's byte order."""
        fields = line.split("\t")
        if len(fields) < 8:
            return ""
        length = int(fields[7], 16).bit_count()
        fields[0] = self._tokens.text(fields[0])
        fields[1] = self._native(fields[1], length)
        fields[2] = self._native(fields[2], 32)
        return "\t".join(fields)

    def _native(self, digits: str, length: int) -> str:
        address = ipaddress.IPv4Address(int(digits, 16).to_bytes(4, self._byteorder))
        return f"{int.from_bytes(self._tokens.moved(address, length).packed, self._byteorder):08X}"

    def _routes6(self, text: str) -> str:
        def moved(line: str) -> str:
            fields = line.split(" ")
            if len(fields) < 10:
                return ""
            for index, length in ((0, int(fields[1], 16)), (2, int(fields[3], 16)), (4, 128)):
                fields[index] = self._digits6(fields[index], length)
            return self._tokens.text(" ".join(fields))

        return "\n".join(map(moved, text.split("\n")))

    def _addresses6(self, text: str) -> str:
        def moved(line: str) -> str:
            digits, blank, rest = line.partition(" ")
            return self._digits6(digits, 128) + blank + self._tokens.text(rest) if blank else ""

        return "\n".join(map(moved, text.split("\n")))

    def _digits6(self, digits: str, length: int) -> str:
        return self._tokens.moved(ipaddress.IPv6Address(int(digits, 16)), length).packed.hex()

    def _trie(self, text: str) -> str:
        def moved(found: re.Match[str]) -> str:
            address = ipaddress.IPv4Address(found[1])
            return (
                str(self._tokens.moved(address, int(found[2]) if found[2] else None))
                + found[0][len(found[1]) :]
            )

        return re.sub(r"(?<= )(\d{1,3}(?:\.\d{1,3}){3})(?:/(\d{1,2}))?", moved, text)

    def _config(self, data: bytes) -> bytes:
        """Configuration space with another serial number. The list of extended capabilities is followed as far as it
        leads forward: a broken one has as many entries as fit."""
        offset, seen = _EXTENDED, 0
        while _EXTENDED <= offset <= len(data) - 12 and seen < 1024:
            (header,) = struct.unpack_from("<I", data, offset)
            if header & 0xFFFF == _SERIAL_NUMBER and header != 0xFFFFFFFF:
                digits = self._tokens.digits("serial", data[offset + 4 : offset + 12].hex(), 16)
                data = data[: offset + 4] + bytes.fromhex(digits) + data[offset + 12 :]
                break
            offset, seen = header >> 20 & 0xFFC, seen + 1
        return data
