"""Owners and modes of VFIO's nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vfioctl.model import Evidence, Node, Unread, shown
from vfioctl.policy.doctor.findings import Case, Check, Finding, Severity

CONTAINER = "/dev/vfio/vfio"


def checks(case: Case) -> Iterator[Check]:
    """The node that makes containers is everybody's (Linux, Documentation/driver-api/vfio.rst), the others are not."""
    yield _container(case)
    yield _open_to_all(case)


def _container(case: Case) -> Check:
    node = case.readings.nodes.get(CONTAINER, Unread.ABSENT)
    if isinstance(node, Unread):
        # Without VFIO's module it is made by udev, and not everywhere: it comes with the first bind.
        return Check("container-node", CONTAINER, node.value, known=node is Unread.ABSENT)
    if node.mode & 0o006 == 0o006:
        return Check("container-node", CONTAINER, _mode(node))
    finding = Finding(
        "container-node-closed",
        Severity.WARNING,
        CONTAINER,
        "not everybody may open it, though it gives access to no device: programs of unprivileged users cannot make "
        "a container",
        (Evidence(CONTAINER, _mode(node)),),
        f"chmod 0666 {CONTAINER}, and correct the udev rule that has made it so",
    )
    return Check("container-node", CONTAINER, _mode(node), (finding,))


def _open_to_all(case: Case) -> Check:
    named = [(group.node, str(group.id)) for group in case.snapshot.groups]
    named += [(device.cdev, shown(device.key)) for device in case.snapshot.devices]
    nodes = [(node, name) for node, name in named if node is not None]
    found = tuple(
        Finding(
            "node-world-writable",
            Severity.WARNING,
            node.path,
            "every user of the host may take the device that it is of, and do DMA with it",
            (Evidence(node.path, _mode(node)),),
            f"vfioctl permit {name} --user NAME gives it to one user; look for the udev rule with MODE=0666",
        )
        for node, name in nodes
        if node.mode & 0o002
    )
    return Check("nodes", None, f"{len(nodes)} nodes, {len(found)} of them open to everybody", found)


def _mode(node: Node) -> str:
    return f"owner {node.uid}:{node.gid}, mode {node.mode:04o}"
