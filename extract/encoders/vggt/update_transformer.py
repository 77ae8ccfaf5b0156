"""The transformer that refines tracks: over time, and among tracks by way of a few virtual ones.

Shapes: B sets, P tracks, V views, Q virtual tracks, N sequences, S tokens, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .block import Mlp
from .config import TrackConfig


class SelfBlock(nn.Module):
    """Attention of a sequence to itself. Residuals start from the normalised input: weights know it so."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """[N, S, D] -> [N, S, D]."""
        x = self.norm1(x)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Attention of a sequence to another. Residuals as in `SelfBlock`."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[N, S, D] -> [N, S, D], with context [N, S', D]."""
        x, context = self.norm1(x), self.norm_context(context)
        x = x + self.cross_attn(x, context, context, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class UpdateTransformer(nn.Module):
    """What to add to each track's place and feature in every view."""

    def __init__(self, dim_in: int, dim_out: int, config: TrackConfig) -> None:
        super().__init__()
        dim, sizes = config.hidden_size, (config.hidden_size, config.num_heads, config.mlp_ratio)
        self.input_norm = nn.LayerNorm(dim_in)
        self.input_transform = nn.Linear(dim_in, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, dim_out)
        # The spelling is that of the released weights.
        self.virual_tracks = nn.Parameter(torch.randn(1, config.num_virtual_tracks, 1, dim))

        def blocks(kind: type[nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(kind(*sizes) for _ in range(config.depth))

        self.time_blocks = blocks(SelfBlock)
        self.space_virtual_blocks = blocks(SelfBlock)
        self.space_point2virtual_blocks = blocks(CrossBlock)
        self.space_virtual2point_blocks = blocks(CrossBlock)
        self._initialise()

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, P, V, dim_out] of tokens [B, P, V, dim_in]."""
        start = self.input_transform(self.input_norm(tokens))
        sets, tracks, views, _ = start.shape
        virtual = self.virual_tracks.to(start.dtype).expand(sets, -1, views, -1)
        x = torch.cat((start, virtual), dim=1)  # [B, P + Q, V, D]
        for k, over_time in enumerate(self.time_blocks):
            x = over_time(x.flatten(0, 1)).view_as(x)
            x = self._over_space(k, x.transpose(1, 2).flatten(0, 1), tracks)
            x = x.unflatten(0, (sets, views)).transpose(1, 2)
        return self.flow_head(self.output_norm(x[:, :tracks] + start))

    def _over_space(self, k: int, x: Tensor, tracks: int) -> Tensor:
        """[B V, P + Q, D]: tracks tell the virtual ones, these each other, and then the tracks."""
        points, virtual = x[:, :tracks], x[:, tracks:]
        virtual = self.space_virtual2point_blocks[k](virtual, points)
        virtual = self.space_virtual_blocks[k](virtual)
        points = self.space_point2virtual_blocks[k](points, virtual)
        return torch.cat((points, virtual), dim=1)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The first answers move nothing far.
        nn.init.trunc_normal_(self.flow_head.weight, std=0.001)
