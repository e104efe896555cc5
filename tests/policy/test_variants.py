"""The most specific alias wins, by case and by the fewest wildcards."""

from __future__ import annotations

import pytest

from vfioctl.model import ModuleAlias
from vfioctl.policy.variants import ANY_DEVICE, choose, known_driver

VF = "pci:v000015B3d0000101Esv000015B3sd00000001bc02sc00i00"
PLAIN = ModuleAlias(ANY_DEVICE, "vfio_pci")
MLX5 = ModuleAlias("vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*", "mlx5_vfio_pci")
CARD = ModuleAlias("vfio_pci:v000015B3d0000101Esv000015B3sd00000001bc*sc*i*", "acme_vfio_pci")
OTHER = ModuleAlias("vfio_pci:v00008086d*sv*sd*bc*sc*i*", "qat_vfio_pci")
LOWER = ModuleAlias("vfio_pci:v000015b3d0000101esv*sd*bc*sc*i*", "lower_vfio_pci")


@pytest.mark.parametrize(
    ("aliases", "module"),
    [
        ([PLAIN], "vfio_pci"),
        ([PLAIN, MLX5], "mlx5_vfio_pci"),
        ([MLX5, PLAIN, OTHER], "mlx5_vfio_pci"),
        ([PLAIN, MLX5, CARD, OTHER], "acme_vfio_pci"),
        ([LOWER, PLAIN], "vfio_pci"),
        ([MLX5, ModuleAlias(MLX5.pattern, "later")], "mlx5_vfio_pci"),
    ],
)
def test_the_fewest_wildcards_win(aliases: list[ModuleAlias], module: str) -> None:
    choice = choose(VF, aliases)
    assert choice is not None and choice.alias.module == module
    assert ("no variant" in choice.why) == (module == "vfio_pci")
    assert module == "vfio_pci" or choice.alias.pattern in choice.why


@pytest.mark.parametrize("modalias", ["", "platform:pcspkr", "css:t0"])
def test_off_pci_there_are_none(modalias: str) -> None:
    assert choose(modalias, [PLAIN, MLX5]) is None


def test_before_they_were_there() -> None:
    assert choose(VF, []) is None


def test_known_names() -> None:
    assert known_driver("xe_vfio_pci") == "xe-vfio-pci"
    assert known_driver("vfio_pci") == "vfio-pci"
    assert known_driver("acme_vfio_pci") is None
