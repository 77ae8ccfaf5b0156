"""Fusion of a pyramid of feature maps, coarse to fine, as in dense prediction transformers (DPT).

Shapes: N images, F features, H W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate


class ResidualUnit(nn.Module):
    """relu(x) + convolutions of it.

    The skip carries relu(x), not x: the released weights were trained so.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, F, H, W] -> [N, F, H, W]."""
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


class FusionBlock(nn.Module):
    """Takes in the next finer map and grows to its size."""

    def __init__(self, features: int, *, has_skip: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.resConfUnit1 = ResidualUnit(features) if has_skip else None
        self.resConfUnit2 = ResidualUnit(features)

    def forward(self, x: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        """[N, F, *size] of a coarse map and, where there is one, the finer map [N, F, H, W]."""
        if self.resConfUnit1 is not None and skip is not None:
            x = x + self.resConfUnit1(skip)
        return self.out_conv(resized(self.resConfUnit2(x), size))


class Scratch(nn.Module):
    """Four maps of a pyramid, fine to coarse, into one map of twice the finest one's size.

    Beside the fusion it holds the output convolutions, whose names checkpoints keep here.
    """

    def __init__(self, in_channels: Sequence[int], features: int, out: int, channels: int | None) -> None:
        super().__init__()
        for level, width in enumerate(in_channels, start=1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(width, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", FusionBlock(features, has_skip=level < len(in_channels)))
        self.output_conv1 = nn.Conv2d(features, out, 3, padding=1)
        if channels is not None:
            self.output_conv2 = nn.Sequential(
                nn.Conv2d(out, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, channels, 1)
            )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[N, out, 2 H, 2 W] of maps [N, in_channels, ...], whose first is H x W."""
        levels = [self.get_submodule(f"layer{i}_rn")(x) for i, x in enumerate(maps, start=1)]
        finest = levels[0].shape[-2:]
        sizes = [[2 * side for side in finest], *(x.shape[-2:] for x in levels[:-1])]
        fused = self.get_submodule("refinenet4")(levels[3], None, sizes[3])
        for i in (2, 1, 0):
            fused = self.get_submodule(f"refinenet{i + 1}")(fused, levels[i], sizes[i])
        return self.output_conv1(fused)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """[N, F, H, W] -> [N, F, *size], bilinear, corner pixels on corner pixels."""
    return interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
