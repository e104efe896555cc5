"""Devices bound to an iommufd, where the kernel says no."""

from __future__ import annotations

import errno
import os

import pytest

from vfioctl.errors import Busy, VfioctlError
from vfioctl.host import iommufd as calls
from vfioctl.host import vfio_cdev
from vfioctl.host.ioctl import CallError
from vfioctl.model import Device, IommuGroup, Node
from vfioctl.ops.backends import Member, iommufd
from vfioctl.policy.refusals import State

CDEV, GROUP = Node("/dev/vfio/devices/vfio0", 0, 0, 0o600), Node("/dev/vfio/26", 0, 0, 0o600)
DEVICE = Device("0000:01:00.0", "pci", 26, driver="vfio-pci", vfio_dev="vfio0", cdev=CDEV)


@pytest.mark.parametrize(
    ("number", "node", "code"),
    [(errno.EINVAL, CDEV, "device-busy"), (errno.EBUSY, GROUP, "group-busy")],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_who_has_the_device_is_said(
    monkeypatch: pytest.MonkeyPatch, number: int, node: Node, code: str
) -> None:
    """Of the device's node itself that is all who have it open but for who asks."""
    opened: list[int] = []

    def open_node(path: str) -> int:
        opened.append(os.open(os.devnull, os.O_RDWR))
        return opened[-1]

    def refuse(fd: int, *arguments: object) -> int:
        raise CallError("VFIO_DEVICE_BIND_IOMMUFD", number)

    def holders(path: str) -> list[str]:
        assert path == node.path
        with pytest.raises(OSError):
            os.fstat(opened[-1])
        return ["qemu (42)"]

    monkeypatch.setattr(iommufd, "open_node", open_node)
    monkeypatch.setattr(iommufd, "holders_of_node", holders)
    monkeypatch.setattr(calls, "ioas_alloc", lambda fd: 1)
    monkeypatch.setattr(calls, "option_get", lambda fd, option: 0)
    monkeypatch.setattr(vfio_cdev, "device_bind_iommufd", refuse)
    backend = iommufd.Iommufd()
    with pytest.raises(VfioctlError, match=r"qemu \(42\)") as caught:
        backend.join(Member(IommuGroup(26, node=GROUP, devices=(DEVICE,)), State(group=26)))
    assert (caught.value.code, caught.value.status) == (code, Busy.status)
    backend.close()
