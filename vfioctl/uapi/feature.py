"""VFIO_DEVICE_FEATURE of <linux/vfio.h>: the features, their flags and payloads (floor 1)."""

from __future__ import annotations

from vfioctl.uapi.cstruct import CStruct

VFIO_DEVICE_FEATURE_MASK = 0xFFFF
VFIO_DEVICE_FEATURE_GET = 1 << 16
VFIO_DEVICE_FEATURE_SET = 1 << 17
VFIO_DEVICE_FEATURE_PROBE = 1 << 18

VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0
VFIO_DEVICE_FEATURE_MIGRATION = 1
VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2
VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3
VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4
VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5
VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6
VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7
VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8
VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9
VFIO_DEVICE_FEATURE_BUS_MASTER = 10
VFIO_DEVICE_FEATURE_DMA_BUF = 11
VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 = 12
VFIO_DEVICE_FEATURE_ZPCI_ERROR = 13

VFIO_MIGRATION_STOP_COPY = 1
VFIO_MIGRATION_P2P = 2
VFIO_MIGRATION_PRE_COPY = 4

VFIO_DEVICE_STATE_ERROR = 0
VFIO_DEVICE_STATE_STOP = 1
VFIO_DEVICE_STATE_RUNNING = 2
VFIO_DEVICE_STATE_STOP_COPY = 3
VFIO_DEVICE_STATE_RESUMING = 4
VFIO_DEVICE_STATE_RUNNING_P2P = 5
VFIO_DEVICE_STATE_PRE_COPY = 6
VFIO_DEVICE_STATE_PRE_COPY_P2P = 7

VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0
VFIO_DEVICE_FEATURE_SET_MASTER = 1


class vfio_device_feature(CStruct, format="=II"):
    """Followed by the feature's payload; ``flags`` are the feature's number and the operation."""

    argsz: int = 0
    flags: int = 0


class vfio_device_feature_migration(CStruct, format="=Q"):
    flags: int = 0


class vfio_device_feature_mig_state(CStruct, format="=Ii"):
    device_state: int = 0
    data_fd: int = 0


class vfio_device_feature_mig_data_size(CStruct, format="=Q"):
    stop_copy_length: int = 0


class vfio_device_low_power_entry_with_wakeup(CStruct, format="=i4x"):
    wakeup_eventfd: int = 0


class vfio_device_feature_bus_master(CStruct, format="=I"):
    op: int = 0
