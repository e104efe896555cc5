"""Every struct's size and every field's offset and size, and every constant, literally (Linux 7.3 headers).

They stand in ``layouts/MODULE.txt``, as a compiler printed them: ``struct NAME SIZE`` in bytes, with a line ``FIELD
OFFSET SIZE`` for each field, and ``CONSTANT VALUE``. Paddings, capability headers and flexible arrays are left out. A
struct that is declared as an older release had it stands there with the size of that.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from vfioctl.uapi import iommufd, vfio
from vfioctl.uapi.cstruct import CStruct


class Layout(NamedTuple):
    size: int
    fields: dict[str, tuple[int, int]]


def stated(path: Path) -> tuple[dict[str, Layout], dict[str, int]]:
    """The structs and the constants of a file."""
    structs: dict[str, Layout] = {}
    constants: dict[str, int] = {}
    fields: dict[str, tuple[int, int]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if words[0] == "struct":
            fields = {}
            structs[words[1]] = Layout(int(words[2]), fields)
        elif line.startswith(" "):
            fields[words[0]] = (int(words[1]), int(words[2]))
        else:
            constants[words[0]] = int(words[1], 0)
    return structs, constants


TABLES = {path.stem: stated(path) for path in sorted(Path(__file__).with_name("layouts").glob("*.txt"))}
STRUCTS = [(module, name) for module, (structs, _) in TABLES.items() for name in structs]


def module(name: str) -> ModuleType:
    return import_module(f"vfioctl.uapi.{name}")


def test_there_is_a_table_of_every_module() -> None:
    declaring = {path.stem for path in Path(str(vfio.__file__)).parent.glob("*.py")}
    assert set(TABLES) == declaring - {"__init__", "capability", "cstruct", "ioctl"}


@pytest.mark.parametrize("name", TABLES)
def test_everything_is_stated(name: str) -> None:
    structs, constants = TABLES[name]
    here = {key: value for key, value in vars(module(name)).items() if not key.startswith("_")}
    declared = {key for key, value in here.items() if isinstance(value, type) and issubclass(value, CStruct)}
    assert declared - {"CStruct", "Command"} == set(structs)
    assert {key: value for key, value in here.items() if type(value) is int} == constants


@pytest.mark.parametrize(("where", "name"), STRUCTS)
def test_layout(where: str, name: str) -> None:
    kind: type[CStruct] = getattr(module(where), name)
    size, fields = TABLES[where][0][name]
    assert kind.size_of == size
    assert kind.fields == tuple(fields)
    for field, (offset, length) in fields.items():
        image = kind().pack()
        image[offset : offset + length] = b"\xff" * length
        others = {key: value for key, value in kind().values().items() if key != field}
        read = kind.unpack(image).values()
        assert read.pop(field) in (-1, (1 << 8 * length) - 1)
        assert read == others


def test_argsz_is_the_size_unless_given() -> None:
    assert vfio.vfio_group_status().argsz == 8
    assert vfio.vfio_irq_set(argsz=24).argsz == 24
    assert iommufd.iommu_destroy().size == 8
    assert vfio.vfio_iommu_type1_dma_map().size == 0


def test_unpack_is_the_inverse_of_pack() -> None:
    question = vfio.vfio_iommu_type1_dma_map(flags=3, vaddr=1 << 40, iova=1 << 20, size=4096)
    assert vfio.vfio_iommu_type1_dma_map.unpack(b"12345678" + question.pack(b"tail"), 8) == question


def test_a_field_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="no field iovaa"):
        vfio.vfio_iommu_type1_dma_map(iovaa=1)  # type: ignore[call-arg]


def test_native_alignment_is_refused() -> None:
    with pytest.raises(TypeError, match="does not begin"):

        class wrong(CStruct, format="IQ"):
            pass
