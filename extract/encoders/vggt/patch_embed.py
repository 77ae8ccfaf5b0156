"""Patch embeddings that are part of the model: a vision transformer of DINOv2's kind, or one convolution.

Both take images in [0, 1], normalise them themselves, and give one token per patch, row-major. That is all
the model asks of a patch embedding: `patch_size`, `width`, and this call.

Shapes: B sets, V views, N = B V images, R C token rows and columns, T prefix tokens (class, registers),
D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .block import Block
from .checkpointing import run_block
from .config import ConvConfig, DinoConfig

_EPS = 1e-6


class DinoPatchEmbed(nn.Module):
    """A vision transformer with registers; its tokens are those of the patches after the final norm.

    Names of its parameters are those of DINOv2's own checkpoints, which therefore load into it.
    """

    def __init__(self, config: DinoConfig, *, patch_size: int, width: int, img_size: int) -> None:
        super().__init__()
        self.patch_size, self.width = patch_size, width
        self.side = img_size // patch_size
        self.mean, self.std = config.mean, config.std
        self.checkpointing = True
        self.patch_embed = _Projection(width, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, width))
        registers = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        # Never used; checkpoints have it.
        self.mask_token = nn.Parameter(torch.zeros(1, width), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                init_values=config.init_values,
                eps=_EPS,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens [B, V, R C, D] of images [B, V, 3, H, W] in [0, 1]."""
        prefix = 1 if self.register_tokens is None else 1 + self.register_tokens.shape[1]
        return self.norm(self.sequence(images.flatten(0, 1)))[:, prefix:].unflatten(0, images.shape[:2])

    def sequence(self, images: Tensor) -> Tensor:
        """All tokens [N, T + R C, D] before the final norm, class, registers, patches, of [N, 3, H, W]."""
        x = self.embedded(normalised(images, self.mean, self.std))
        for block in self.blocks:
            x = run_block(block, x, active=self.checkpointing and self.training)
        return x

    def embedded(self, images: Tensor) -> Tensor:
        """The sequence [N, T + R C, D] that enters the first block, of normalised images [N, 3, H, W]."""
        rows, cols = (side // self.patch_size for side in images.shape[-2:])
        x = self.patch_embed(images)  # [N, R C, D]
        cls = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat((cls, x), dim=1) + self._positions(rows, cols).to(x.dtype)
        if self.register_tokens is None:
            return x
        # Registers have no place in the image and so no position.
        return torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]), dim=1)

    def _positions(self, rows: int, cols: int) -> Tensor:
        """Position embedding of class and patches, [1, 1 + R C, D] f32, for any grid."""
        positions = self.pos_embed.float()
        if (rows, cols) == (self.side, self.side):
            return positions
        grid = positions[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # [1, D, side, side]
        grid = interpolate(grid, size=(rows, cols), mode="bicubic", antialias=True)
        return torch.cat((positions[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class ConvPatchEmbed(nn.Module):
    """One convolution: each patch by itself. Positions come with the attention that follows."""

    def __init__(self, config: ConvConfig, *, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size, self.width = patch_size, width
        self.mean, self.std = config.mean, config.std
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens [B, V, R C, D] of images [B, V, 3, H, W] in [0, 1]."""
        patches = self.proj(normalised(images.flatten(0, 1), self.mean, self.std))
        return _row_major(patches).unflatten(0, images.shape[:2])


class _Projection(nn.Module):
    """The convolution under the name that checkpoints give it."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return _row_major(self.proj(images))


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """[N, 3, H, W] by channel. Numbers of Python need neither a buffer nor a copy to the device.

    They are those of float32 in float64 too, as whoever trained the weights held them.
    """
    mean, std = ([float(np.float32(value)) for value in values] for values in (mean, std))
    return torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)


def _row_major(patches: Tensor) -> Tensor:
    """[N, D, R, C] -> [N, R C, D]."""
    return patches.flatten(2).transpose(1, 2)
