"""The dense heads: one value per pixel from tokens of four layers.

Shapes: N views, R C token rows and columns, T prefix tokens, D channels of tokens, F features,
K channels put out, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .config import DPTConfig
from .dpt_fusion import Scratch, resized
from .position_map import position_map

_POSITION_SHARE = 0.1


class DPTHead(nn.Module):
    """Tokens of four layers to a map.

    Args:
        dim: D.
        config: of all dense heads.
        channels: K; none = the head ends with its features.
        positions: whether the position map is added.
    """

    def __init__(self, dim: int, config: DPTConfig, *, channels: int | None, positions: bool = True) -> None:
        super().__init__()
        widths = config.out_channels
        self.positions = positions
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], kernel_size=4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], kernel_size=3, stride=2, padding=1),
            )
        )
        out = config.features if channels is None else config.features // 2
        self.scratch = Scratch(widths, config.features, out, channels)

    def forward(
        self, layers: Sequence[Tensor], grid: tuple[int, int], size: tuple[int, int], aspect: float
    ) -> Tensor:
        """The map [N, K (or F), *size].

        Args:
            layers: four of [N, R C, D] patch tokens, shallow to deep, of any dtype.
            grid: (R, C).
            size: (height, width) of the map.
            aspect: width over height of the images.
        """
        maps = [self._level(level, tokens, grid, aspect) for level, tokens in enumerate(layers)]
        fused = self._placed(resized(self.scratch(maps), size), aspect)
        output = getattr(self.scratch, "output_conv2", None)
        return fused if output is None else output(fused)

    def _level(self, level: int, tokens: Tensor, grid: tuple[int, int], aspect: float) -> Tensor:
        tokens = self.norm(tokens.to(self.norm.weight.dtype))
        x = tokens.transpose(1, 2).unflatten(2, grid)  # [N, D, R, C]
        return self.resize_layers[level](self._placed(self.projects[level](x), aspect))

    def _placed(self, x: Tensor, aspect: float) -> Tensor:
        if not self.positions:
            return x
        height, width = x.shape[-2:]
        places = position_map(x.shape[1], (height, width), aspect, device=x.device)
        return x + _POSITION_SHARE * places.to(x.dtype)


def depth_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(depth [N, H, W, 1] > 0, confidence [N, H, W] > 1) of raw [N, 2, H, W]."""
    depth, confidence = _split(raw)
    return depth.exp(), confidence


def points_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(points [N, H, W, 3], confidence [N, H, W] > 1) of raw [N, 4, H, W], far points on a log scale."""
    points, confidence = _split(raw)
    return torch.sign(points) * torch.expm1(points.abs()), confidence


def _split(raw: Tensor) -> tuple[Tensor, Tensor]:
    raw = raw.permute(0, 2, 3, 1)
    return raw[..., :-1], 1 + raw[..., -1].exp()
