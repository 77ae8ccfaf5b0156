"""Oracles: encoders that read the answer from the geometry, and baselines that know next to nothing.

They bound every probe from above and below. None has blocks: each has the one layer `norm`, in
float32 on any compute dtype, and sees images on a grid of 14-pixel patches. Tokens without a world
point are 0 in those that need one.

Shapes: B sets, V views, R C token rows and columns, D channels, F frequencies, H W pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...errors import EncoderError
from ...kernels.geometry import transform
from ...store.layers import resolve_layers
from .base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from .image_size import overlapping, token_grid
from .weights import state_digest


class Oracle(Encoder):
    """An encoder without blocks; a subclass sets `channels` and implements `tokens`."""

    channels: int

    def __init__(self, info: EncoderInfo) -> None:
        self.info = info
        self._device = torch.device("cpu")

    @abstractmethod
    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        """[B, V, R, C, D] of a batch that has all needed fields."""

    def state(self) -> Mapping[str, Tensor]:
        """The tensors that decide its features; an oracle without any is named by its name."""
        return {self.info.name: torch.empty(0)}

    def width(self, layer: str) -> int:
        resolve_layers((layer,), self.layers(), 0)
        return self.channels

    def layers(self) -> tuple[str, ...]:
        return ("norm",)

    def overlap(self, stride: int) -> Oracle:
        self.info = overlapping(self.info, stride)
        return self

    @torch.inference_mode()
    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        wanted = resolve_layers(layers, self.layers(), 0)
        grid = token_grid(self.info, batch)
        self._check_needs(batch)
        tokens = self.tokens(batch, grid).to(self._device, torch.float32)
        return {layer: FeatureMap(tokens=tokens) for layer in wanted}

    def weights_digest(self) -> str:
        return state_digest(self.state())

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Oracle:
        """The oracle itself, on that device; it computes in full precision whatever the dtype."""
        self._device = torch.device(device)
        return self

    def _check_needs(self, batch: ViewBatch) -> None:
        missing = sorted(name for name in self.info.needs if getattr(batch, name) is None)
        if missing:
            raise EncoderError(
                f"{self.info.name} needs {' and '.join(missing)}.",
                where="the batch of views",
                why="it reads its features from the geometry, and these views come without it",
                fix="use scenes with depth and cameras",
            )


class WorldOracle(Oracle):
    """Random Fourier features of the world point: cos and sin of 192 phases, 384 channels.

    The frequencies are drawn from N(0, 1 / length^2) with length = 0.1 scene scales, so the cosine
    similarity of two tokens falls with their distance as exp(-distance^2 / (2 length^2)).
    """

    channels = 384
    length_in_scales = 0.1

    @cached_property
    def frequencies(self) -> Tensor:
        """[192, 3] f32 from N(0, 1), per length."""
        return torch.randn(self.channels // 2, 3, generator=torch.Generator().manual_seed(0))

    def state(self) -> Mapping[str, Tensor]:
        return {"frequencies": self.frequencies}

    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        points, valid = _world_points(batch, grid, self._device)
        assert batch.scene_scale_m is not None
        length_m = self.length_in_scales * batch.scene_scale_m.to(self._device).double()  # [B]
        omega = self.frequencies.to(self._device).double()  # [F, 3]
        phase = (points / length_m[:, None, None, None, None]) @ omega.mT  # [B, V, R, C, F]
        features = torch.cat((phase.cos(), phase.sin()), dim=-1)
        return torch.where(valid, features, 0.0)


class CameraOracle(Oracle):
    """Camera coordinates (x right, y down, z forward) of the token's point, in the scene's unit."""

    channels = 3

    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        points, valid = _world_points(batch, grid, self._device)
        assert batch.cam_from_world is not None
        cam_from_world = batch.cam_from_world.to(self._device).double()
        points_cam = transform(cam_from_world, points.flatten(2, 3)).unflatten(2, grid)
        return torch.where(valid, points_cam, 0.0)


class RgbOracle(Oracle):
    """Mean colour of the patch, each channel in [0, 1]."""

    channels = 3

    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        images = batch.images.to(self._device, torch.float32)
        colours = avg_pool2d(images.flatten(0, 1), self.info.patch_size, self.info.stride)  # [B V, 3, R, C]
        return colours.movedim(1, -1).unflatten(0, images.shape[:2])


class PositionOracle(Oracle):
    """Place of the token's centre in the image, the same for every view.

    Channels: row and column in (-1, 1), then cos and sin of pi/2 times the row, then of the column.
    """

    channels = 6

    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        step, first = self.info.stride or self.info.patch_size, self.info.patch_size
        sides = [
            (2 * step * torch.arange(n, device=self._device) + first) / side - 1
            for n, side in zip(grid, self.info.pixels(grid), strict=True)
        ]
        row, col = torch.meshgrid(*sides, indexing="ij")  # [R, C] each
        angles = [math.pi / 2 * side for side in (row, col)]
        waves = [wave for angle in angles for wave in (angle.cos(), angle.sin())]
        return torch.stack((row, col, *waves), dim=-1).expand(*batch.images.shape[:2], -1, -1, -1)


class ConstantOracle(Oracle):
    """One channel of ones."""

    channels = 1

    def tokens(self, batch: ViewBatch, grid: tuple[int, int]) -> Tensor:
        return torch.ones(*batch.images.shape[:2], *grid, self.channels)


ORACLES: dict[str, type[Oracle]] = {
    "world": WorldOracle,
    "camera": CameraOracle,
    "rgb": RgbOracle,
    "position": PositionOracle,
    "constant": ConstantOracle,
}


def _world_points(batch: ViewBatch, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Points [B, V, R, C, 3] f64 (0 where there is none) and whether there is one, [B, V, R, C, 1]."""
    assert batch.token_point_world is not None
    # Far from the origin float32 leaves too few digits for the phase of a high frequency.
    points = batch.token_point_world.to(device).double()
    if points.shape[2:] != (*grid, 3):
        raise EncoderError(
            f"token_point_world has shape {list(points.shape)}.",
            where="the batch of views",
            why=f"[B, V, {grid[0]}, {grid[1]}, 3] is expected, one point per token",
            fix="sample the points on the same grid as the images",
        )
    valid = points.isfinite().all(-1, keepdim=True)
    return torch.where(valid, points, 0.0), valid
