"""What the host uses a device for: whose use it is, names that others have chosen, and names that mean more."""

from __future__ import annotations

import pytest

from tests.fakes.command import run_command
from tests.fakes.uses import A, B, Host
from vfioctl.model import Use


def mounts(host: Host, *where: bytes) -> None:
    lines = [b"36 25 8:0 / %s rw,relatime shared:1 - ext4 /dev/sda rw\n" % path for path in where]
    host.put("/proc/self/mountinfo", b"".join(lines))


@pytest.mark.parametrize(
    "where",
    [
        rb"/mnt/two\040words",
        rb"/mnt/a\012vfioctl:\040cure:\040--allow",
        rb"/mnt/back\134slash\011tab",
        b"/mnt/\xff\xfe\x1b[2J",
        rb"/mnt/\033[2J\015",
    ],
)
def test_a_mount_point_is_one_line_whatever_its_name(host: Host, where: bytes) -> None:
    host.disk("sda", "8:0")
    mounts(host, where, b"/")
    root, hostile = host.uses()
    assert hostile.guard == "mounted-disk"
    assert hostile.evidence.isprintable() and hostile.evidence.startswith("sda is mounted on /mnt/")
    assert root == Use("root-disk", "sda is mounted on /")


@pytest.mark.parametrize("where", [b"/mnt/a\rb", b"/mnt/a\x0cb", b"/mnt/a\xe2\x80\xa8b", b"/mnt/a\xc2\x85b"])
def test_what_the_kernel_does_not_escape_ends_no_line(host: Host, where: bytes) -> None:
    host.disk("sda", "8:0")
    mounts(host, where)
    assert host.guards() == ["mounted-disk"]


class TestVirtualFunctions:
    VF = "0000:00:07.0"

    @pytest.fixture
    def function(self, host: Host) -> Host:
        """A has a virtual function with an interface and a disk."""
        home = host.add(self.VF, 7)
        host.link(f"{host.homes['pci', A]}/virtfn0", home)
        return host

    def test_on_a_host_driver(self, function: Host) -> None:
        function.bind("pci", self.VF, "nvme")
        function.disk("nvme0n1", "259:0", self.VF, below="nvme/nvme0")
        function.mount("/dev/nvme0n1", "/srv", number="259:0")
        function.interface("eth7", self.VF)
        function.route("eth7", gateway=True)
        assert function.uses(A) == [
            Use("virtual-functions", f"its virtual functions are enabled: {self.VF} (nvme)"),
            Use("mounted-disk", "nvme0n1 is mounted on /srv"),
            Use("default-route", "the IPv4 default route leaves through eth7"),
        ]
        assert function.guards(self.VF) == ["mounted-disk", "default-route"]

    def test_without_a_driver(self, function: Host) -> None:
        evidence = f"its virtual functions are enabled: {self.VF} (no driver)"
        assert function.uses(A) == [Use("virtual-functions", evidence)]

    @pytest.mark.parametrize("driver", ["vfio-pci", "unheard-of"])
    def test_on_a_vfio_driver(self, function: Host, driver: str) -> None:
        function.bind("pci", self.VF, driver)
        if driver != "vfio-pci":
            function.vfio_dev("pci", self.VF, "vfio0")
        assert function.guards(A) == ["virtual-functions-assigned", "virtual-functions"]
        assert function.uses(A)[0].evidence == f"its virtual functions are on VFIO: {self.VF} ({driver})"

    def test_many_in_their_order(self, host: Host) -> None:
        for number in (0, 2, 10):
            host.link(
                f"{host.homes['pci', A]}/virtfn{number}", host.add(f"0000:01:00.{number % 7}", 20 + number)
            )
        (use,) = host.uses(A)
        assert [word for word in use.evidence.split() if ":" in word][1:] == [
            "0000:01:00.0",
            "0000:01:00.2",
            "0000:01:00.3",
        ]


def test_a_pci_domain_behind_a_vmd_endpoint(host: Host) -> None:
    domain = f"{host.homes['pci', A]}/pci10000:e0/10000:e0:06.0/10000:e1:00.0"
    for device in (domain, domain.rpartition("/")[0]):
        host.put(f"{device}/vendor", "0x8086\n")
    host.directory(f"{domain}/nvme/nvme0/nvme0n1/holders")
    host.put(f"{domain}/nvme/nvme0/nvme0n1/dev", "259:0\n")
    host.link("/sys/class/block/nvme0n1", f"{domain}/nvme/nvme0/nvme0n1")
    host.mount("/dev/nvme0n1", "/", number="259:0")
    assert host.uses(A) == [
        Use("vmd", "a PCI domain is behind it: 10000:e0:06.0, 10000:e1:00.0"),
        Use("root-disk", "nvme0n1 is mounted on /"),
    ]
    assert host.uses(B) == []


class TestNamesThatMeanMore:
    def ask(self, host: Host, name: str) -> tuple[int, str]:
        result = run_command(None, "--root", host.root, "check-viable", name, "-J")
        return result.status, result.json_error["code"] if result.status == 2 else ""

    def test_one_interface_of_a_card(self, host: Host) -> None:
        host.interface("eth0")
        assert self.ask(host, "eth0")[0] in (0, 1)

    def test_an_interface_on_usb(self, host: Host) -> None:
        home = f"{host.homes['pci', A]}/usb1/1-1/1-1:1.0/net/enx0"
        host.directory(home)
        host.link("/sys/class/net/enx0", home)
        assert self.ask(host, "enx0") == (2, "ambiguous")

    def test_the_only_disk_of_a_controller(self, host: Host) -> None:
        host.disk("sda", "8:0")
        host.partition("sda", "sda1", "8:1")
        assert self.ask(host, "sda")[0] in (0, 1)

    def test_one_disk_of_two(self, host: Host) -> None:
        host.disk("sda", "8:0", below="ata1/host0/target0:0:0/0:0:0:0")
        host.disk("sdb", "8:16", below="ata2/host1/target1:0:0/1:0:0:0")
        for name in ("sda", "sdb"):
            assert self.ask(host, name) == (2, "ambiguous")
        assert self.ask(host, A)[0] in (0, 1)
