"""What a person at the host needs: displays, consoles, the last keyboard."""

from __future__ import annotations

import pytest

from tests.fakes.uses import A, B, Host
from vfioctl.model import Use


def frame_buffer(host: Host, name: str = "fb0", address: str = A, what: str = "bochs-drmdrmfb") -> None:
    device = host.homes["pci", address]
    host.put(f"{device}/graphics/{name}/name", f"{what}\n")
    host.link(f"{device}/graphics/{name}/device", device)
    host.link(f"/sys/class/graphics/{name}", f"{device}/graphics/{name}")
    host.put("/sys/class/graphics/fbcon/rotate", "0\n")


def console(host: Host, name: str, bound: bool, number: int = 1) -> None:
    host.put(f"/sys/class/vtconsole/vtcon{number}/name", f"{name}\n")
    host.put(f"/sys/class/vtconsole/vtcon{number}/bind", f"{int(bound)}\n")


class TestDisplay:
    @pytest.mark.parametrize(("value", "guards"), [("1", ["boot-vga"]), ("0", [])])
    def test_boot_vga(self, host: Host, value: str, guards: list[str]) -> None:
        host.put(f"{host.homes['pci', A]}/boot_vga", f"{value}\n")
        assert host.guards() == guards

    def test_a_console_on_its_frame_buffer(self, host: Host) -> None:
        frame_buffer(host)
        console(host, "(S) dummy device", False, 0)
        console(host, "(M) frame buffer device", True)
        assert host.uses() == [Use("console", "the text console is on its frame buffer fb0 (bochs-drmdrmfb)")]
        assert host.uses(B) == []

    def test_a_frame_buffer_without_a_console(self, host: Host) -> None:
        frame_buffer(host)
        console(host, "(M) frame buffer device", False)
        assert host.uses() == []

    def test_a_console_that_is_none_of_frame_buffers(self, host: Host) -> None:
        frame_buffer(host)
        console(host, "(S) VGA+", True)
        assert host.uses() == []


class TestFirmwareFramebuffer:
    EVIDENCE = "BOOTFB has the firmware's frame buffer in it"

    def iomem(self, host: Host, *lines: str) -> None:
        host.put("/proc/iomem", "".join(f"{line}\n" for line in lines))

    @pytest.mark.parametrize(
        "owner", ["BOOTFB", "simple-framebuffer", "simpledrm", "efifb", "vesafb", "efidrm"]
    )
    def test_inside_of_a_bar(self, host: Host, owner: str) -> None:
        self.iomem(
            host,
            "c0000000-febfffff : PCI Bus 0000:00",
            f"  e0000000-e0ffffff : {A}",
            f"    e0000000-e02fffff : {owner}",
            f"  fd000000-fd000fff : {B}",
        )
        assert host.guards(A) == ["firmware-framebuffer"]
        assert host.guards(B) == []

    def test_without_privilege_the_nesting_tells(self, host: Host) -> None:
        zero = "00000000-00000000"
        self.iomem(
            host, f"{zero} : PCI Bus 0000:00", f"  {zero} : {A}", f"    {zero} : BOOTFB", f"  {zero} : {B}"
        )
        assert host.uses(A) == [Use("firmware-framebuffer", self.EVIDENCE)]
        assert host.uses(B) == []

    def test_by_address(self, host: Host) -> None:
        """Above the device's own region, not in it."""
        host.put(
            f"{host.homes['pci', A]}/resource",
            "0x00000000e0000000 0x00000000e0ffffff 0x0000000000042208\n"
            "0x000000000000c000 0x000000000000c07f 0x0000000000040101\n"
            "0x0000000000000000 0x0000000000000000 0x0000000000000000\n",
        )
        self.iomem(host, "e0000000-e02fffff : BOOTFB")
        assert host.uses(A) == [Use("firmware-framebuffer", self.EVIDENCE)]

    @pytest.mark.parametrize(("class_", "warned"), [("0x030000", True), ("0x010601", False)])
    def test_where_it_is_may_be_hidden(self, host: Host, class_: str, warned: bool) -> None:
        host.put(f"{host.homes['pci', A]}/class", f"{class_}\n")
        self.iomem(host, "00000000-00000000 : BOOTFB")
        assert [(use.guard, use.refuses) for use in host.uses(A)] == (
            [("firmware-framebuffer", False)] if warned else []
        )

    def test_a_driver_of_its_own(self, host: Host) -> None:
        self.iomem(host, f"e0000000-e0ffffff : {A}", "  e0000000-e02fffff : bochs-drm")
        assert host.uses(A) == []


class TestLastKeyboard:
    USB = "usb1/1-1/1-1:1.0/0003:0627:0001.0001/input/input3"

    def plug(self, host: Host, address: str, name: str = "QEMU USB Keyboard") -> None:
        host.keyboard(f"{host.homes['pci', address]}/{self.USB}", name)

    def test_the_only_one(self, host: Host) -> None:
        self.plug(host, A)
        assert host.uses(A) == [Use("last-keyboard", "no keyboard would be left: QEMU USB Keyboard")]
        assert host.uses(B) == []

    def test_one_on_each_controller(self, host: Host) -> None:
        self.plug(host, A)
        self.plug(host, B)
        assert host.uses(A) == host.uses(B) == []
        assert host.guards(A, B) == ["last-keyboard", "last-keyboard"]

    def test_another_on_ps2(self, host: Host) -> None:
        self.plug(host, A)
        host.keyboard("/sys/devices/platform/i8042/serio0/input/input1", "AT Translated Set 2 keyboard")
        assert host.uses(A) == []

    def test_what_a_program_makes_up_is_no_other(self, host: Host) -> None:
        self.plug(host, A)
        host.keyboard("/sys/devices/virtual/input/input9", "keyd virtual keyboard")
        assert host.guards(A) == ["last-keyboard"]

    def test_buttons_are_no_keyboards(self, host: Host) -> None:
        """A power button has no letters, and a remote control with letters does not repeat."""
        self.plug(host, A)
        host.keyboard(
            "/sys/devices/LNXSYSTM:00/LNXPWRBN:00/input/input0",
            "Power Button",
            ev="3",
            key="10000000000000 0",
        )
        host.keyboard("/sys/devices/platform/x/input/input2", "Remote", ev="3")
        host.keyboard("/sys/devices/platform/y/input/input4", "Wheel", key="10000000000000 0")
        assert host.guards(A) == ["last-keyboard"]

    def test_no_keyboard_at_all(self, host: Host) -> None:
        host.keyboard(f"{host.homes['pci', A]}/usb1/input/input0", "Mouse", ev="17", key="1f0000 0 0 0 0")
        assert host.uses(A) == []
