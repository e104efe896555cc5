"""Secrets become tokens: the same ones the same, networks still networks, and what is read from a file as before."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfioctl.policy.redaction import Files, Tokens

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(b"key", ["alicebox", "alice"])


@pytest.fixture
def files(tokens: Tokens) -> Files:
    return Files(tokens, {"sda", "sda1", "dm-0", "nvme0n1p2"})


def test_tokens_have_the_form_of_what_they_stand_for(tokens: Tokens) -> None:
    text = tokens.text(f"a {UUID} 52:54:00:12:34:56 enx525400123456 {UUID.upper()} 0000:01:00.0 00:11:22")
    assert re.fullmatch(
        r"a [0-9a-f-]{36} ([0-9a-f]{2}:){5}[0-9a-f]{2} enx[0-9a-f]{12} [0-9a-f-]{36} 0000:01:00.0 00:11:22",
        text,
    )
    words = text.split()
    assert UUID not in text and words[1] == words[4] and words[3] == "enx" + words[2].replace(":", "")
    assert "52:54" not in text and "5254" not in text
    assert tokens.counts == {"mac": 1, "uuid": 1}


def test_the_same_secret_is_the_same_token_of_one_key_only(tokens: Tokens) -> None:
    other = Tokens(b"other")
    assert tokens.name("x") == tokens.name("x") != tokens.name("y")
    assert tokens.name("x") != other.name("x")
    assert tokens.address("192.0.2.1") == tokens.address("192.0.2.1") != other.address("192.0.2.1")


def test_words_of_people(tokens: Tokens) -> None:
    said = tokens.prose("Alice's keyboard on alicebox, malice-2, alice")
    name = tokens.name("alice")
    assert said == f"{name}'s keyboard on {tokens.name('alicebox')}, malice-2, {name}"


Version = type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]
versions: st.SearchStrategy[Version] = st.sampled_from([ipaddress.IPv4Address, ipaddress.IPv6Address])


@given(st.data(), st.binary(min_size=1, max_size=8))
def test_networks_contain_what_they_did(data: st.DataObject, key: bytes) -> None:
    """Addresses with the same first bits have as many afterwards, and not one more; so it is a bijection."""
    version = data.draw(versions)
    bits = 32 if version is ipaddress.IPv4Address else 128
    first = data.draw(st.integers(0, 2**bits - 1))
    second = (
        first ^ (1 << data.draw(st.integers(0, bits - 1)))
        if data.draw(st.booleans())
        else data.draw(st.integers(0, 2**bits - 1))
    )
    tokens = Tokens(key)
    moved = [int(tokens.moved(version(each))) for each in (first, second)]
    assert (first ^ second).bit_length() == (moved[0] ^ moved[1]).bit_length()
    length = data.draw(st.integers(0, bits))
    network = first >> (bits - length) << (bits - length)
    there = int(tokens.moved(version(network), length))
    assert there & ((1 << (bits - length)) - 1) == 0 or tokens.moved(version(network)) == version(network)
    assert there >> (bits - length) == moved[0] >> (bits - length)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.251", "::", "::1", "ff02::1"]
)
def test_addresses_that_mean_the_same_everywhere_stay(tokens: Tokens, address: str) -> None:
    assert tokens.address(address) == address


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"), ("172.20.1.1", "172.16.0.0/12"), ("192.168.7.9", "192.168.0.0/16"),
        ("fe80::5054:ff:fe12:3456", "fe80::/64"), ("169.254.1.1", "169.254.0.0/16"),
    ],
)  # fmt: skip
def test_private_networks_stay_and_hosts_do_not(tokens: Tokens, address: str, network: str) -> None:
    moved = tokens.address(address)
    assert moved != address and ipaddress.ip_address(moved) in ipaddress.ip_network(network)


def test_other_forms_of_addresses(tokens: Tokens) -> None:
    assert tokens.address("::ffff:192.0.2.1") == f"::ffff:{tokens.address('192.0.2.1')}"
    assert tokens.address("fe80::1:2%eth0").endswith("%eth0")
    assert tokens.address("desk.example") == tokens.name("desk.example", "address")


def test_the_command_line(files: Files, tokens: Tokens) -> None:
    line = (
        f"BOOT_IMAGE=/vmlinuz root=UUID={UUID} ro quiet intel_iommu=on,sm_on vfio-pci.ids=10de:1234 ip=192.0.2.1 "
        "pcie_acs_override=downstream cryptdevice=/dev/sda2:alice systemd.hostname=alicebox "
        'modprobe.blacklist=nouveau x="y -- --secret 5'
    )
    words = files.data("proc/cmdline", f"{line}\n".encode()).decode()
    words, _, inits = words.partition(" -- ")
    assert inits == f"{tokens.name('--secret')} {tokens.name('5')}\n"
    kept = {word for word in words.split() if "=name-" not in word}
    assert kept == {
        "ro", "quiet", "intel_iommu=on,sm_on", "vfio-pci.ids=10de:1234", "pcie_acs_override=downstream",
        "modprobe.blacklist=nouveau",
    }  # fmt: skip
    assert {word.partition("=")[0] for word in words.split()} - {word.partition("=")[0] for word in kept} == {
        "BOOT_IMAGE", "root", "ip", "cryptdevice", "systemd.hostname", "x",
    }  # fmt: skip


def test_mounts(files: Files, tokens: Tokens) -> None:
    lines = [
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
        "23 22 253:0 / /home/alice/vm rw - xfs /dev/mapper/alicebox--vg-home rw,logdev=/dev/sda1",
        "24 22 0:50 /@/alice /srv/data rw - btrfs /dev/nvme0n1p2 rw,subvol=/@/alice",
        "25 22 0:51 / /mnt/x rw - nfs4 files.example:/export rw,addr=192.0.2.9",
        "26 22 0:52 / /tank rw - zfs tank/home rw,xattr",
        "27 22 0:53 / /run/user/1000 rw - tmpfs tmpfs rw,size=1024k,uid=1000",
        "28 22 0:54 / /mnt/b rw - bcachefs /dev/sda:/dev/sda1 rw",
        "broken alice",
    ]
    found = files.data("proc/self/mountinfo", "\n".join(lines).encode()).decode().split("\n")
    name = tokens.name
    assert found == [
        f"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors={name('remount-ro')}",
        f"23 22 253:0 / /home/{name('alice')}/vm rw - xfs /dev/mapper/{name('alicebox--vg-home')} rw,logdev=/dev/sda1",
        f"24 22 0:50 /{name('@')}/{name('alice')} /srv/data rw - btrfs /dev/nvme0n1p2 rw,subvol={name('/@/alice')}",
        f"25 22 0:51 / /mnt/{name('x')} rw - nfs4 {name('files.example:/export')} rw,addr={name('192.0.2.9')}",
        f"26 22 0:52 / /{name('tank')} rw - zfs {name('tank')}/{name('home')} rw,xattr",
        f"27 22 0:53 / /run/user/{name('1000')} rw - tmpfs tmpfs rw,size={name('1024k')},uid={name('1000')}",
        f"28 22 0:54 / /mnt/{name('b')} rw - bcachefs /dev/sda:/dev/sda1 rw",
        "",
    ]
    assert files.path("dev/mapper/alicebox--vg-home") == f"dev/mapper/{name('alicebox--vg-home')}"
    assert files.data("sys/devices/virtual/block/dm-0/dm/name", b"alicebox--vg-home\n").decode() == (
        f"{name('alicebox--vg-home')}\n"
    )
    assert files.path("proc/spl/kstat/zfs/tank") == f"proc/spl/kstat/zfs/{name('tank')}"
    assert (
        files.data("run/udev/data/b8:0", b"E:ID_FS_LABEL=tank\n").decode()
        == f"E:ID_FS_LABEL={name('tank')}\n"
    )


def test_swaps(files: Files, tokens: Tokens) -> None:
    text = "Filename Type\n/dev/dm-0      partition\t1\n/home/alice/swap   file\t1\n"
    assert files.data("proc/swaps", text.encode()).decode() == (
        f"Filename Type\n/dev/dm-0      partition\t1\n/home/{tokens.name('alice')}/{tokens.name('swap')}   file\t1\n"
    )


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_routes(tokens: Tokens, byteorder: str) -> None:
    def native(address: str) -> str:
        return f"{int.from_bytes(ipaddress.IPv4Address(address).packed, byteorder):08X}"  # type: ignore[arg-type]

    files = Files(tokens, (), byteorder)  # type: ignore[arg-type]
    heading = "Iface\tDestination\tGateway"
    lines = [
        f"eth0\t{native('0.0.0.0')}\t{native('192.0.2.254')}\t0003\t0\t0\t0\t{native('0.0.0.0')}\t0\t0\t0",
        f"eth0\t{native('192.0.2.0')}\t{native('0.0.0.0')}\t0001\t0\t0\t0\t{native('255.255.255.0')}\t0\t0\t0",
    ]
    text = files.data("proc/net/route", "\n".join([heading, *lines]).encode()).decode().split("\n")
    first, second = (line.split("\t") for line in text[1:])
    assert (first[1], first[7], second[2]) == (native("0.0.0.0"),) * 3
    network = str(tokens.moved(ipaddress.IPv4Address("192.0.2.0"), 24))
    assert network.endswith(".0") and second[1] == native(network) and "C000" not in second[1]
    assert first[2] == native(tokens.address("192.0.2.254"))
    assert ipaddress.ip_address(tokens.address("192.0.2.1")) in ipaddress.ip_network(f"{network}/24")


def test_routes_and_addresses_of_ipv6(files: Files, tokens: Tokens) -> None:
    zero, host = "0" * 32, ipaddress.IPv6Address("2001:db8::42")
    line = (
        f"20010db8000000000000000000000000 20 {zero} 00 {zero} 00000400 00000001 00000000 00000001     eth0"
    )
    fields = files.data("proc/net/ipv6_route", line.encode()).decode().split()
    network = ipaddress.IPv6Network((int(fields[0], 16), 32))
    assert fields[1:4] == ["20", zero, "00"] and tokens.moved(host) in network
    told = files.data("proc/net/if_inet6", f"{host.packed.hex()} 02 40 00 80     eth0\n".encode()).decode()
    assert told == f"{tokens.moved(host).packed.hex()} 02 40 00 80     eth0\n"


def test_the_trie(files: Files, tokens: Tokens) -> None:
    text = (
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.1\n        /32 host LOCAL\n  +-- 192.0.2.0/24 2 0 2\n"
    )
    found = files.data("proc/net/fib_trie", text.encode()).decode()
    network = tokens.moved(ipaddress.IPv4Address("192.0.2.0"), 24)
    assert found == text.replace("192.0.2.1\n", f"{tokens.address('192.0.2.1')}\n").replace(
        "192.0.2.0", str(network)
    )


def config(*capabilities: tuple[int, int, int]) -> bytes:
    """4096 bytes with extended capabilities (offset, id, next) that have 8 bytes of 0x5a each."""
    data = bytearray(4096)
    for offset, number, next_ in capabilities:
        data[offset : offset + 12] = (next_ << 20 | 1 << 16 | number).to_bytes(4, "little") + b"\x5a" * 8
    return bytes(data)


def test_the_serial_number_of_a_device(files: Files, tokens: Tokens) -> None:
    before = config((0x100, 1, 0x148), (0x148, 3, 0x200), (0x200, 13, 0))
    after = files.data("sys/devices/pci0000:00/0000:00:01.0/config", before)
    assert after[:0x14C] == before[:0x14C] and after[0x154:] == before[0x154:]
    assert after[0x14C:0x154] != before[0x14C:0x154]
    assert tokens.counts == {"serial": 1}


@pytest.mark.parametrize(
    "data",
    [b"", bytes(64), bytes(256), bytes(4096), b"\xff" * 4096, config((0x100, 1, 0x100)), config((0x100, 1, 0xFFC)),
     config((0x100, 3, 0))[:0x104]],
    ids=len,
)  # fmt: skip
def test_configuration_space_without_one(files: Files, data: bytes) -> None:
    assert files.data("sys/devices/pci0000:00/0000:00:01.0/config", data) == data


def test_names_of_members(files: Files, tokens: Tokens) -> None:
    assert files.path(f"sys/fs/btrfs/{UUID}/devices") == f"sys/fs/btrfs/{tokens.text(UUID)}/devices"
    assert files.path("run/libvirt/qemu/win.xml") == f"run/libvirt/qemu/{tokens.name('win')}.xml"
    assert files.path("dev/vfio/26") == "dev/vfio/26"
    assert files.path("dev/dm-0") == "dev/dm-0"
    assert files.target("sys/class/net/enx525400123456", "../../devices/x/net/enx525400123456") == (
        f"../../devices/x/net/{tokens.text('enx525400123456')}"
    )
    mark = files.path("dev/mapper/vg")
    assert files.target("dev/mapper/vg", "vg") == mark.rpartition("/")[2]


def test_what_people_have_written(files: Files, tokens: Tokens) -> None:
    text = "# by alice\noptions vfio-pci ids=10de:1234\n  # secret\n"
    assert files.data("etc/modprobe.d/vfio.conf", text.encode()).decode() == (
        "#\noptions vfio-pci ids=10de:1234\n  #\n"
    )
    keyboard = files.data("proc/bus/input/devices", b'N: Name="Alice\'s keyboard"\n').decode()
    assert keyboard == f'N: Name="{tokens.name("alice")}\'s keyboard"\n'
