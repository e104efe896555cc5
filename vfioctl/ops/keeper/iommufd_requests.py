"""What a keeper is asked of an iommufd only: further address spaces."""

from __future__ import annotations

from vfioctl.errors import UsageError
from vfioctl.host.channel import Message
from vfioctl.ops.backends.iommufd import Iommufd
from vfioctl.ops.keeper.kept import Kept
from vfioctl.ops.keeper.operation import IOVA, MAYBE, NAME, SIZE, Answer, Field, Operation, malformed


def _iommufd(kept: Kept) -> Iommufd:
    space = kept.container.space
    if not isinstance(space, Iommufd):
        raise UsageError(
            f"the backend of the container is {space.name}, and only iommufd has that",
            hint="vfioctl container open NAME GROUP --backend iommufd",
            code="not-supported",
        )
    return space


def _create(kept: Kept, message: Message) -> Answer:
    return Message({"ioas": _iommufd(kept).create()})
    yield


def _destroy(kept: Kept, message: Message) -> Answer:
    _iommufd(kept).destroy(message.fields["ioas"])
    return Message({})
    yield


def _copy(kept: Kept, message: Message) -> Answer:
    fields = message.fields
    iova = fields["source"] if fields.get("iova") is None else fields["iova"]
    _iommufd(kept).copy(fields["ioas"], fields["source"], fields["size"], iova, fields.get("prot") or "rw")
    return Message({"iova": iova})
    yield


def _allow(kept: Kept, message: Message) -> Answer:
    ranges = message.fields["ranges"]
    if not all(isinstance(pair, list) and len(pair) == 2 and all(map(IOVA.accepts, pair)) for pair in ranges):
        raise malformed("ranges are pairs of addresses")
    _iommufd(kept).allow([(first, last) for first, last in ranges])
    return Message({})
    yield


def _attach(kept: Kept, message: Message) -> Answer:
    fields = message.fields
    _iommufd(kept).attach(fields["device"], fields["ioas"], fields.get("pasid"))
    return Message({})
    yield


def _detach(kept: Kept, message: Message) -> Answer:
    _iommufd(kept).detach(message.fields["device"], message.fields.get("pasid"))
    return Message({})
    yield


OPERATIONS: dict[str, Operation] = {
    "ioas-create": Operation(_create, {}, changes=True),
    "ioas-destroy": Operation(_destroy, {"ioas": IOVA}, changes=True),
    "ioas-copy": Operation(
        _copy,
        {
            "ioas": IOVA,
            "source": IOVA,
            "size": SIZE,
            "iova": MAYBE,
            "prot": Field(str, optional=True, choice=("r", "w", "rw")),
        },
        changes=True,
    ),
    "ioas-allow": Operation(_allow, {"ranges": Field(list)}, changes=True),
    "ioas-attach": Operation(_attach, {"device": NAME, "ioas": IOVA, "pasid": MAYBE}, changes=True),
    "ioas-detach": Operation(_detach, {"device": NAME, "pasid": MAYBE}, changes=True),
}
