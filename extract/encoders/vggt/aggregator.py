"""Alternating attention: within each view, then among all views of the set, `depth` times.

Each view has a camera token and registers before its patch tokens; the first view, whose camera is the
frame of the world, has its own. Only wanted layers are kept, in the dtype that is computed in, and
blocks behind the last of them are not run.

Shapes: B sets, V views, R C token rows and columns, T prefix tokens (camera, registers),
N = T + R C tokens of a view, D channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from .block import Block
from .build import PatchEmbed
from .checkpointing import run_block
from .config import VGGTConfig
from .rope import grid_positions, rotary_tables


class Aggregator(nn.Module):
    """Patch embedding and alternating attention.

    Attributes:
        patch_embed: images [B, V, 3, H, W] in [0, 1] -> tokens [B, V, R C, width].
        projection: from the patch embedding's channels to the model's; none where they are equal.
        prefix: T.
        frozen: the patch embedding is neither trained nor part of the graph, and stays in eval mode.
        checkpointing: activations are computed again in the backward pass, in training mode.
    """

    def __init__(self, config: VGGTConfig, patch_embed: PatchEmbed) -> None:
        super().__init__()
        dim, registers = config.embed_dim, config.num_register_tokens
        self.prefix, self.rope_freq = 1 + registers, config.rope_freq
        self.head_dim = dim // config.num_heads
        self.checkpointing, self.frozen = True, False
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, registers, dim))
        self.patch_embed = patch_embed
        width = patch_embed.width
        self.projection = nn.Linear(width, dim) if width != dim else None
        self.frame_blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        nn.init.normal_(self.camera_token, std=1e-6)
        nn.init.normal_(self.register_token, std=1e-6)

    def freeze_encoder(self) -> None:
        """From now on the patch embedding is not trained."""
        self.frozen = True
        self.patch_embed.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Aggregator:
        """Training or eval mode; a frozen patch embedding stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.patch_embed.eval()
        return self

    def encode(self, images: Tensor) -> Tensor:
        """The patch embedding's tokens [B, V, R C, width] of images [B, V, 3, H, W] in [0, 1]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.patch_embed(images)

    def forward(self, tokens: Tensor, grid: tuple[int, int], keep: Collection[int]) -> dict[int, Tensor]:
        """Outputs of the wanted blocks.

        Args:
            tokens: [B, V, R C, width] of the patch embedding.
            grid: (R, C).
            keep: numbers of blocks.

        Returns:
            By block, [B, V, N, 2 D]: after its frame attention, then after its global attention. A caller
            that lets go of a layer frees it.
        """
        steps = self.steps(tokens, grid)
        _, x = next(steps)
        kept_dtype = _computed_in(x)
        kept: dict[int, Tensor] = {}
        for k in range(1 + max(keep, default=-1)):
            (_, views), (_, x) = next(steps), next(steps)
            if k in keep:
                kept[k] = torch.cat((views.to(kept_dtype), x.to(kept_dtype)), dim=-1)
        return kept

    def steps(self, tokens: Tensor, grid: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
        """What enters the blocks and what each of them puts out, computed when it is asked for.

        Args:
            tokens, grid: as of `forward`.

        Yields:
            `patch_embed`, `frame0`, `global0`, `frame1`, ..., each with [B, V, N, D].
        """
        x = self._sequence(tokens)
        yield "patch_embed", x
        positions = grid_positions(*grid, self.prefix, x.device)
        rope = rotary_tables(positions, self.head_dim, self.rope_freq, x.dtype)
        active = self.checkpointing and self.training
        for k, (within, among) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            x = run_block(within, x.flatten(0, 1), rope, active=active).view_as(x)
            yield f"frame{k}", x
            x = run_block(among, x.flatten(1, 2), rope, active=active).view_as(x)
            yield f"global{k}", x

    def _sequence(self, tokens: Tensor) -> Tensor:
        """Tokens [B, V, R C, width] with the prefix before them, [B, V, N, D]."""
        tokens = tokens.to(self.camera_token.dtype)
        if self.projection is not None:
            tokens = self.projection(tokens)
        sets, views = tokens.shape[:2]
        prefix = torch.cat((self.camera_token, self.register_token), dim=2)  # [1, 2, T, D]
        prefix = torch.cat((prefix[:, :1], prefix[:, 1:].expand(-1, views - 1, -1, -1)), dim=1)
        return torch.cat((prefix.expand(sets, -1, -1, -1).to(tokens.dtype), tokens), dim=2)


def _block(config: VGGTConfig) -> Block:
    return Block(
        config.embed_dim,
        config.num_heads,
        mlp_ratio=config.mlp_ratio,
        init_values=config.init_values,
        qk_norm=config.qk_norm,
    )


def _computed_in(x: Tensor) -> torch.dtype:
    """The dtype of matrix products: autocast's where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
