"""The track head: a feature map of every view, and the tracker on it.

Shapes: N views of all sets, R C token rows and columns, D channels of tokens, F features, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from .config import DPTConfig, TrackConfig
from .dpt_head import DPTHead
from .tracker import Tracker


class TrackHead(nn.Module):
    """Features by a dense head, tracks by `tracker`."""

    def __init__(self, dim: int, dpt: DPTConfig, config: TrackConfig) -> None:
        super().__init__()
        self.stride = config.stride
        dense = replace(dpt, features=config.features)
        self.feature_extractor = DPTHead(dim, dense, channels=None, positions=False)
        self.tracker = Tracker(config)

    def features(
        self, layers: Sequence[Tensor], grid: tuple[int, int], size: tuple[int, int], aspect: float
    ) -> Tensor:
        """The map [N, F, H / stride, W / stride] that is tracked in; arguments as of `DPTHead`."""
        height, width = (max(1, side // self.stride) for side in size)
        return self.feature_extractor(layers, grid, (height, width), aspect)
