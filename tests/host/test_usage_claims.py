"""Devices that driverctl, libvirt or Proxmox have claimed; their files may hold anything."""

from __future__ import annotations

import errno
import os

import pytest

from tests.fakes.uses import A, B, Host
from vfioctl.host.usage import claims
from vfioctl.model import Use

DOMAIN = """<domstatus state='running' reason='booted' pid='4711'>
  <domain type='kvm' id='3'><name>vm</name><devices>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <driver name='vfio'/>
      <source><address domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></source>
      <alias name='hostdev0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x06' function='0x0'/>
    </hostdev>
  </devices></domain></domstatus>
"""
LIBVIRT = Use("libvirt", "the running libvirt domain vm has it")


class TestDriverctl:
    def test_the_driver_is_told(self, host: Host) -> None:
        host.put(f"/etc/driverctl.d/pci-{A}", "uio_pci_generic\n")
        evidence = f"/etc/driverctl.d/pci-{A} gives it to the driver uio_pci_generic"
        assert host.uses(A) == [Use("driverctl", evidence, driver="uio_pci_generic")]
        assert host.uses(B) == []

    def test_nothing_in_it(self, host: Host) -> None:
        host.put(f"/etc/driverctl.d/pci-{A}", "\n")
        assert host.uses(A) == []

    def test_hostile_content(self, host: Host) -> None:
        host.put(f"/etc/driverctl.d/pci-{A}", "x\x1b[2J\nvfioctl: cure: rm\n")
        (use,) = host.uses(A)
        assert use.evidence.isprintable()

    def test_no_regular_file(self, host: Host) -> None:
        host.directory("/etc/driverctl.d")
        os.mkfifo(host.at(f"/etc/driverctl.d/pci-{A}"))
        host.directory(f"/etc/driverctl.d/pci-{B}")
        assert host.uses(A, B) == []


class TestLibvirt:
    @pytest.mark.parametrize("directory", ["qemu", "lxc"])
    def test_what_a_running_domain_takes_from_the_host(self, host: Host, directory: str) -> None:
        """The address outside of the source is the guest's, and there it is B's."""
        host.put(f"/run/libvirt/{directory}/vm.xml", DOMAIN)
        assert host.uses(A) == [LIBVIRT]
        assert host.uses(B) == []

    @pytest.mark.parametrize("kind", ["<interface type='hostdev'>", "<disk type='nvme' device='disk'>"])
    def test_other_ways_to_take_one(self, host: Host, kind: str) -> None:
        end = kind.split()[0].replace("<", "</") + ">"
        source = "<source><address type='pci' domain='0' bus='0' slot='5' function='0'/></source>"
        host.put("/run/libvirt/qemu/vm.xml", f"<domain>{kind}{source}{end}</domain>")
        assert host.uses(A) == [LIBVIRT]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<domain>",
            "\x00",
            DOMAIN.replace("0x05", "five"),
            DOMAIN.replace("slot='0x05'", ""),
            '<!DOCTYPE x [<!ENTITY a "a"><!ENTITY b "&a;&a;">]>' + DOMAIN,
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
            + DOMAIN.replace("<name>vm", "<name>&a;"),
        ],
    )
    def test_what_is_not_understood_claims_nothing(self, host: Host, text: str) -> None:
        host.put("/run/libvirt/qemu/vm.xml", text)
        assert host.uses(A) == []

    def test_a_file_without_end(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claims, "_LIMIT", len(DOMAIN) - 1)
        host.put("/run/libvirt/qemu/vm.xml", DOMAIN)
        assert host.uses(A) == []

    def test_other_files(self, host: Host) -> None:
        host.put("/run/libvirt/qemu/vm.pid", "4711\n")
        host.directory("/run/libvirt/qemu/dir.xml")
        host.put("/run/libvirt/qemu/vm2.xml", DOMAIN)
        assert host.guards(A) == ["libvirt"]

    def test_what_may_not_be_read_is_said(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        def names(path: str) -> list[str]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(claims, "names", names)
        unseen = "only root may read /run/libvirt/qemu, /run/libvirt/lxc"
        assert host.uses(A) == [Use("unseen", unseen, refuses=False)]


class TestProxmox:
    def reserve(self, host: Host, *lines: str) -> list[Use]:
        host.put("/run/qemu-server/pci-id-reservations", "".join(f"{line}\n" for line in lines))
        return host.uses(A)

    def test_by_a_living_process(self, host: Host) -> None:
        host.directory("/proc/4711")
        evidence = "Proxmox has reserved it for virtual machine 101"
        assert self.reserve(host, f"{B} 100 pid:4711", f"{A} 101 pid:4711") == [Use("proxmox", evidence)]

    def test_by_a_dead_one(self, host: Host) -> None:
        assert self.reserve(host, f"{A} 101 pid:4711") == []

    @pytest.mark.parametrize("address", [A, A[5:], A[:-2], A[5:-2]])
    def test_until_a_time(self, host: Host, address: str) -> None:
        assert [use.guard for use in self.reserve(host, f"{address} 101 time:99999999999")] == ["proxmox"]

    @pytest.mark.parametrize(
        "line", ["", f"{A}", f"{A} x pid:1", f"{A} 101 pid:x", f"x{A} 101 time:1", f".* 101 time:{9**10}"]
    )
    def test_nonsense(self, host: Host, line: str) -> None:
        host.directory("/proc/1")
        assert self.reserve(host, line) == []
