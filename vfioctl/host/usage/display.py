"""Displays that the host needs: the firmware's, the text console's, and what the firmware left on the screen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.errors import visible
from vfioctl.host.files import names, read
from vfioctl.model import Use

#: Owners of the firmware's frame buffer, as /proc/iomem calls them (drivers/firmware/sysfb*.c and its users).
FIRMWARE = re.compile(
    r"(BOOTFB|simple-?framebuffer|simplefb|simpledrm|(efi|vesa|of)(fb|drm))\b", re.IGNORECASE
)


class Region(NamedTuple):
    """A line of /proc/iomem; ``inside`` are the names of the regions around it. The addresses are 0 for who is not
    root."""

    start: int
    end: int
    name: str
    inside: tuple[str, ...]


class Display:
    """What the host's frame buffers and consoles are on."""

    def __init__(self, root: str) -> None:
        graphics = os.path.join(root, "sys/class/graphics")
        devices = {name: os.path.join(graphics, name, "device") for name in names(graphics)}
        self._buffers = {
            name: os.path.realpath(link) for name, link in devices.items() if os.path.lexists(link)
        }
        self._graphics = graphics
        self._console_on_buffer = _console_on_buffer(root)
        self._firmware = [r for r in _regions(root) if FIRMWARE.match(r.name)]

    def uses(self, top: str) -> Iterator[Use]:
        """The uses of the device with the real sysfs path ``top``, whether it has a driver or not."""
        if read(os.path.join(top, "boot_vga")) == "1":
            yield Use("boot-vga", "it is the display that the firmware chose (boot_vga is 1)")
        for name, device in self._buffers.items():
            if self._console_on_buffer and f"{device}/".startswith(f"{top}/"):
                what = read(os.path.join(self._graphics, name, "name")) or "frame buffer"
                yield Use("console", visible(f"the text console is on its frame buffer {name} ({what})"))
        bars = list(_bars(top))
        for region in self._firmware:
            if os.path.basename(top) in region.inside or any(
                start <= region.start <= region.end <= end and region.end for start, end in bars
            ):
                yield Use(
                    "firmware-framebuffer", visible(f"{region.name} has the firmware's frame buffer in it")
                )
            elif not region.end and not any(map(_is_pci, region.inside)) and _is_display(top):
                yield Use(
                    "firmware-framebuffer",
                    visible(f"{region.name} has a frame buffer, and where may be read by root only"),
                    refuses=False,
                )


def _console_on_buffer(root: str) -> bool:
    top = os.path.join(root, "sys/class/vtconsole")
    return any(
        "frame buffer" in (read(os.path.join(top, name, "name")) or "")
        and read(os.path.join(top, name, "bind")) == "1"
        for name in names(top)
    )


def _regions(root: str) -> Iterator[Region]:
    inside: list[str] = []
    for line in (read(os.path.join(root, "proc/iomem")) or "").split("\n"):
        match = re.fullmatch(r"( *)([0-9a-f]+)-([0-9a-f]+) : (.*)", line)
        if match:
            del inside[len(match[1]) // 2 :]
            yield Region(int(match[2], 16), int(match[3], 16), match[4], tuple(inside))
            inside.append(match[4])


def _bars(top: str) -> Iterator[tuple[int, int]]:
    """The ranges of a PCI device's ``resource`` (start, end, flags): memory only, which is flag 0x200."""
    for line in (read(os.path.join(top, "resource")) or "").split("\n"):
        fields = [int(word, 16) for word in re.findall("0x([0-9a-f]+)", line)]
        if len(fields) == 3 and fields[2] & 0x200:
            yield fields[0], fields[1]


def _is_pci(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", name) is not None


def _is_display(top: str) -> bool:
    return (read(os.path.join(top, "class")) or "").startswith("0x03")
