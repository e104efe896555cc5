"""Every struct's size and every field's offset and size, and every constant, literally (Linux 7.3 headers)."""

from __future__ import annotations

import pytest

from vfioctl.uapi import vfio
from vfioctl.uapi.cstruct import CStruct

#: name: (size, {field: (offset, size)}), in bytes; paddings, capability headers and flexible arrays left out.
STRUCTS = {
    "vfio_info_cap_header": (8, {"id": (0, 2), "version": (2, 2), "next": (4, 4)}),
    "vfio_group_status": (8, {"argsz": (0, 4), "flags": (4, 4)}),
    "vfio_iommu_type1_info": (
        24,
        {"argsz": (0, 4), "flags": (4, 4), "iova_pgsizes": (8, 8), "cap_offset": (16, 4)},
    ),
    "vfio_iommu_type1_info_cap_iova_range": (16, {"nr_iovas": (8, 4)}),
    "vfio_iova_range": (16, {"start": (0, 8), "end": (8, 8)}),
    "vfio_iommu_type1_info_cap_migration": (
        32,
        {"flags": (8, 4), "pgsize_bitmap": (16, 8), "max_dirty_bitmap_size": (24, 8)},
    ),
    "vfio_iommu_type1_info_dma_avail": (12, {"avail": (8, 4)}),
    "vfio_iommu_type1_dma_map": (
        32,
        {"argsz": (0, 4), "flags": (4, 4), "vaddr": (8, 8), "iova": (16, 8), "size": (24, 8)},
    ),
    "vfio_iommu_type1_dma_unmap": (24, {"argsz": (0, 4), "flags": (4, 4), "iova": (8, 8), "size": (16, 8)}),
    "vfio_device_info": (
        24,
        {"argsz": (0, 4), "flags": (4, 4), "num_regions": (8, 4), "num_irqs": (12, 4), "cap_offset": (16, 4)},
    ),
    "vfio_device_info_cap_pci_atomic_comp": (16, {"flags": (8, 4)}),
    "vfio_region_info": (
        32,
        {
            "argsz": (0, 4),
            "flags": (4, 4),
            "index": (8, 4),
            "cap_offset": (12, 4),
            "size": (16, 8),
            "offset": (24, 8),
        },
    ),
    "vfio_region_info_cap_sparse_mmap": (16, {"nr_areas": (8, 4)}),
    "vfio_region_sparse_mmap_area": (16, {"offset": (0, 8), "size": (8, 8)}),
    "vfio_region_info_cap_type": (16, {"type": (8, 4), "subtype": (12, 4)}),
    "vfio_irq_info": (16, {"argsz": (0, 4), "flags": (4, 4), "index": (8, 4), "count": (12, 4)}),
    "vfio_irq_set": (
        20,
        {"argsz": (0, 4), "flags": (4, 4), "index": (8, 4), "start": (12, 4), "count": (16, 4)},
    ),
}

CONSTANTS = [
    ("VFIO_API_VERSION", 0),
    ("VFIO_TYPE", 0x3B),
    ("VFIO_BASE", 0x64),
    ("VFIO_TYPE1_IOMMU", 1),
    ("VFIO_SPAPR_TCE_IOMMU", 2),
    ("VFIO_TYPE1v2_IOMMU", 3),
    ("VFIO_DMA_CC_IOMMU", 4),
    ("VFIO_EEH", 5),
    ("VFIO_TYPE1_NESTING_IOMMU", 6),
    ("VFIO_SPAPR_TCE_v2_IOMMU", 7),
    ("VFIO_NOIOMMU_IOMMU", 8),
    ("VFIO_UNMAP_ALL", 9),
    ("VFIO_UPDATE_VADDR", 0xA),
    ("VFIO_GROUP_FLAGS_VIABLE", 1),
    ("VFIO_GROUP_FLAGS_CONTAINER_SET", 2),
    ("VFIO_IOMMU_INFO_PGSIZES", 1),
    ("VFIO_IOMMU_INFO_CAPS", 2),
    ("VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE", 1),
    ("VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION", 2),
    ("VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL", 3),
    ("VFIO_DMA_MAP_FLAG_READ", 1),
    ("VFIO_DMA_MAP_FLAG_WRITE", 2),
    ("VFIO_DMA_MAP_FLAG_VADDR", 4),
    ("VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP", 1),
    ("VFIO_DMA_UNMAP_FLAG_ALL", 2),
    ("VFIO_DMA_UNMAP_FLAG_VADDR", 4),
    ("VFIO_DEVICE_FLAGS_RESET", 1),
    ("VFIO_DEVICE_FLAGS_PCI", 2),
    ("VFIO_DEVICE_FLAGS_PLATFORM", 4),
    ("VFIO_DEVICE_FLAGS_AMBA", 8),
    ("VFIO_DEVICE_FLAGS_CCW", 0x10),
    ("VFIO_DEVICE_FLAGS_AP", 0x20),
    ("VFIO_DEVICE_FLAGS_FSL_MC", 0x40),
    ("VFIO_DEVICE_FLAGS_CAPS", 0x80),
    ("VFIO_DEVICE_FLAGS_CDX", 0x100),
    ("VFIO_DEVICE_INFO_CAP_ZPCI_BASE", 1),
    ("VFIO_DEVICE_INFO_CAP_ZPCI_GROUP", 2),
    ("VFIO_DEVICE_INFO_CAP_ZPCI_UTIL", 3),
    ("VFIO_DEVICE_INFO_CAP_ZPCI_PFIP", 4),
    ("VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP", 5),
    ("VFIO_REGION_INFO_FLAG_READ", 1),
    ("VFIO_REGION_INFO_FLAG_WRITE", 2),
    ("VFIO_REGION_INFO_FLAG_MMAP", 4),
    ("VFIO_REGION_INFO_FLAG_CAPS", 8),
    ("VFIO_REGION_INFO_CAP_SPARSE_MMAP", 1),
    ("VFIO_REGION_INFO_CAP_TYPE", 2),
    ("VFIO_REGION_INFO_CAP_MSIX_MAPPABLE", 3),
    ("VFIO_PCI_BAR0_REGION_INDEX", 0),
    ("VFIO_PCI_BAR1_REGION_INDEX", 1),
    ("VFIO_PCI_BAR2_REGION_INDEX", 2),
    ("VFIO_PCI_BAR3_REGION_INDEX", 3),
    ("VFIO_PCI_BAR4_REGION_INDEX", 4),
    ("VFIO_PCI_BAR5_REGION_INDEX", 5),
    ("VFIO_PCI_ROM_REGION_INDEX", 6),
    ("VFIO_PCI_CONFIG_REGION_INDEX", 7),
    ("VFIO_PCI_VGA_REGION_INDEX", 8),
    ("VFIO_PCI_NUM_REGIONS", 9),
    ("VFIO_IRQ_INFO_EVENTFD", 1),
    ("VFIO_IRQ_INFO_MASKABLE", 2),
    ("VFIO_IRQ_INFO_AUTOMASKED", 4),
    ("VFIO_IRQ_INFO_NORESIZE", 8),
    ("VFIO_IRQ_SET_DATA_NONE", 1),
    ("VFIO_IRQ_SET_DATA_BOOL", 2),
    ("VFIO_IRQ_SET_DATA_EVENTFD", 4),
    ("VFIO_IRQ_SET_ACTION_MASK", 8),
    ("VFIO_IRQ_SET_ACTION_UNMASK", 0x10),
    ("VFIO_IRQ_SET_ACTION_TRIGGER", 0x20),
    ("VFIO_PCI_INTX_IRQ_INDEX", 0),
    ("VFIO_PCI_MSI_IRQ_INDEX", 1),
    ("VFIO_PCI_MSIX_IRQ_INDEX", 2),
    ("VFIO_PCI_ERR_IRQ_INDEX", 3),
    ("VFIO_PCI_REQ_IRQ_INDEX", 4),
    ("VFIO_PCI_NUM_IRQS", 5),
]


def test_all_structs_are_stated() -> None:
    declared = {
        name
        for name, value in vars(vfio).items()
        if isinstance(value, type) and issubclass(value, CStruct) and value is not CStruct
    }
    assert declared == set(STRUCTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_layout(name: str) -> None:
    kind: type[CStruct] = getattr(vfio, name)
    size, fields = STRUCTS[name]
    assert kind.size_of == size
    assert kind.fields == tuple(fields)
    for field, (offset, length) in fields.items():
        image = kind(**({"argsz": 0} if "argsz" in fields else {}) | {field: (1 << 8 * length) - 1}).pack()
        assert [at for at, byte in enumerate(image) if byte == 0xFF] == list(range(offset, offset + length))


@pytest.mark.parametrize(("name", "value"), CONSTANTS)
def test_constant(name: str, value: int) -> None:
    assert getattr(vfio, name) == value


def test_argsz_is_the_size_unless_given() -> None:
    assert vfio.vfio_group_status().argsz == 8
    assert vfio.vfio_irq_set(argsz=24).argsz == 24


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
