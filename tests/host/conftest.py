"""A host as files, and a kernel that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.uses import Host
from tests.host.answers import Answer, Answers
from vfioctl.host import (
    iommufd,
    iommufd_hw,
    spapr,
    vfio,
    vfio_cdev,
    vfio_dirty,
    vfio_features,
    vfio_irqs,
    vfio_reset,
)

MODULES = (iommufd, iommufd_hw, spapr, vfio, vfio_cdev, vfio_dirty, vfio_features, vfio_irqs, vfio_reset)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answers]:
    """Prepares answers (see tests/host/answers.py) for every module that makes ioctls of VFIO and iommufd."""

    def prepare(*answers: Answer, result: int = 0) -> Answers:
        stand_in = Answers(*answers, result=result)
        for module in MODULES:
            monkeypatch.setattr(module, "ioctl", stand_in)
        return stand_in

    return prepare
