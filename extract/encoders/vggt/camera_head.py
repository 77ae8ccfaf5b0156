"""The camera head: cameras from the camera tokens, refined a few times.

Each refinement looks at the first token of every view, modulated by the last estimate, and adds a change
to it. The estimate that goes on is the raw one; only what is answered has its fields of view clipped.
Gradients do not go from one refinement to the one before: each is to be right by itself.

Shapes: B sets, V views, D channels (of both attentions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from .block import Block, Mlp
from .config import CameraConfig
from .pose_encoding import activated

_POSE = 9


class CameraHead(nn.Module):
    """Estimates of `pose_encoding.py`, the last one best."""

    def __init__(self, dim: int, config: CameraConfig) -> None:
        super().__init__()
        self.iters = config.iters
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, _POSE))
        self.embed_pose = nn.Linear(_POSE, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.Sequential(
            *(
                Block(dim, config.num_heads, mlp_ratio=config.mlp_ratio, init_values=config.init_values)
                for _ in range(config.trunk_depth)
            )
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.pose_branch = Mlp(dim, dim // 2, _POSE)

    def forward(self, camera_tokens: Tensor) -> list[Tensor]:
        """`iters` estimates, [B, V, 9] each, of camera tokens [B, V, D]."""
        tokens = self.token_norm(camera_tokens.to(self.token_norm.weight.dtype))
        raw = tokens.new_zeros(*tokens.shape[:2], _POSE)
        pose = self.empty_pose_tokens.expand_as(raw)
        estimates = []
        for _ in range(self.iters):
            raw = raw.detach() + self.pose_branch(self.trunk_norm(self.trunk(self._modulated(tokens, pose))))
            pose = raw.detach()
            estimates.append(activated(raw))
        return estimates

    def _modulated(self, tokens: Tensor, pose: Tensor) -> Tensor:
        shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
        plain = layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        return tokens + gate * (plain * (1 + scale) + shift)
