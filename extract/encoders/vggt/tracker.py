"""Tracks of points of the first view through the others, refined a few times.

Shapes: B sets, V views, P tracks, C channels of the feature map, H W its pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .block import Mlp
from .config import TrackConfig
from .correlation import correlations, pyramid, sampled
from .position_map import sincos
from .update_transformer import UpdateTransformer

_POSITION_BASE = 10_000.0
_FLOW_SCALE = 1_000.0


class Tracker(nn.Module):
    """Places, visibility and confidence of tracks in every view."""

    def __init__(self, config: TrackConfig) -> None:
        super().__init__()
        self.config, features = config, config.features
        windows = config.corr_levels * (2 * config.corr_radius + 1) ** 2
        token = 3 * features + 4
        self.query_ref_token = nn.Parameter(torch.randn(1, 2, token))
        self.corr_mlp = Mlp(windows, config.hidden_size, features)
        self.updateformer = UpdateTransformer(token, features + 2, config)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))

    def forward(
        self, features: Tensor, query_points: Tensor, iters: int | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Tracks of query points through feature maps.

        Args:
            features: [B, V, C, H, W].
            query_points: [B, P, 2] (x, y) in pixels of the first image.
            iters: refinements; none = the config's.

        Returns:
            (after each refinement [B, V, P, 2] (x, y) in pixels of the images, visibility [B, V, P] and
            confidence [B, V, P], both in [0, 1]).
        """
        features = self.fmap_norm(features.movedim(2, -1)).movedim(-1, 2)
        views, stride = features.shape[1], self.config.stride
        # In 16 bit, which the model may have, a place is not known to the pixel.
        places = query_points.to(torch.promote_types(features.dtype, torch.float32))
        start = places[:, None] / stride  # [B, 1, P, 2]
        coords = start.expand(-1, views, -1, -1)
        query = sampled(features[:, 0], start, padding="border")[:, :, 0]  # [B, C, P]
        query = query.transpose(1, 2).to(self.query_ref_token.dtype)
        tracked = query[:, None].expand(-1, views, -1, -1)  # [B, V, P, C]
        maps, place = pyramid(features.flatten(0, 1), self.config.corr_levels), self._place(features, start)
        tracks = []
        for _ in range(self.config.iters if iters is None else iters):
            move, change = self._change(maps, coords.detach(), tracked, place)
            tracked = tracked + self.ffeat_updater(self._group_normed(change))
            # The query stays where it was asked for.
            coords = torch.cat((start, (coords.detach() + move)[:, 1:]), dim=1)
            tracks.append(coords * stride)
        return tracks, self._share(self.vis_predictor, tracked), self._share(self.conf_predictor, tracked)

    def _change(
        self, maps: list[Tensor], coords: Tensor, tracked: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What to add to coords [B, V, P, 2] and to features [B, V, P, C]."""
        dtype = self.query_ref_token.dtype
        windows = correlations(maps, tracked.flatten(0, 1), coords.flatten(0, 1), self.config.corr_radius)
        seen = self.corr_mlp(windows.to(dtype)).unflatten(0, coords.shape[:2])  # [B, V, P, C]
        flow = coords - coords[:, :1]
        scaled = flow / self.config.max_scale
        waves = flow_embedding(flow, self.config.features // 2)
        tokens = torch.cat((waves, scaled, scaled, seen, tracked), dim=-1) + place
        change = self.updateformer(tokens.to(dtype).transpose(1, 2)).transpose(1, 2)  # [B, V, P, 2 + C]
        return change[..., :2], change[..., 2:]

    def _place(self, features: Tensor, start: Tensor) -> Tensor:
        """What tokens are told of where a track starts and whose view it is, [B, V, P, 3 C + 4]."""
        channels, (height, width) = self.query_ref_token.shape[-1], features.shape[-2:]
        grid = place_map(channels, height, width, features.device)
        place = sampled(grid.expand(len(start), -1, -1, -1), start.float(), padding="border")
        views = features.shape[1]
        reference = torch.cat(
            (self.query_ref_token[:, :1], self.query_ref_token[:, 1:].expand(-1, views - 1, -1)), dim=1
        )
        return place.permute(0, 2, 3, 1) + reference[:, :, None]

    def _group_normed(self, change: Tensor) -> Tensor:
        return self.ffeat_norm(change.flatten(0, 2)).view_as(change)

    def _share(self, predictor: nn.Module, tracked: Tensor) -> Tensor:
        return predictor(tracked)[..., 0].sigmoid()


def flow_embedding(flow: Tensor, channels: int) -> Tensor:
    """[..., 2 C] f32 of flow [..., 2] (x, y) in pixels: for each axis C sines and cosines in turn."""
    steps = torch.arange(0, channels, 2, dtype=torch.float32, device=flow.device)
    # The frequencies reach a thousand: of a flow in 16 bit these would be other numbers.
    angles = flow[..., None] * (steps * (_FLOW_SCALE / channels))  # [..., 2, C / 2]
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3).float()


def place_map(channels: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """[C, H, W] f32 sines and cosines: half of the channels for x, half for y, in pixels of the map."""
    y, x = (torch.arange(n, dtype=torch.float64, device=device) for n in (height, width))
    parts = [sincos(axis, channels // 2, _POSITION_BASE) for axis in (x, y)]
    along_x = parts[0][None].expand(height, -1, -1)
    along_y = parts[1][:, None].expand(-1, width, -1)
    return torch.cat((along_x, along_y), dim=-1).permute(2, 0, 1).float()
