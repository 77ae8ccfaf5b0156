"""Bilinear samples of token maps against torch's `grid_sample` of the same points.

Four views of 37 x 37 tokens, 4,096 points of each, float32. Ours are given the tokens as they are stored,
[V, R, C, D]; the peer a view of them with channels first, and the same moved in memory beforehand: the faster
counts. Both answer [V, N, D]. `gradient` is both passes. Goal on a processor: not slower. One thread, CPU
seconds, in turns. On a GPU the same between device events, in float16 too, without a goal.

    python benchmarks/kernel_sample_tokens.py --check
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from judge import Clock, Row, cpu_seconds, device_seconds, peer_ratio, run_alone
from strata.kernels.sample_tokens import sample_tokens
from torch import Tensor
from torch.nn.functional import grid_sample

VIEWS, GRID, POINTS, WIDTHS, GOAL = 4, (37, 37), 4096, (384, 1024), 1.0
REPEATS = 20


def measure(pairs: int) -> list[Row]:
    """The rows of a processor from so many pairs of runs, and those of the GPU where there is one."""
    torch.set_num_threads(1)
    rows = [row for width in WIDTHS for row in against_torch(width, pairs, goal=GOAL)]
    if torch.cuda.is_available():
        rows += [row for dtype in (torch.float32, torch.float16) for row in on_gpu(dtype, pairs)]
    return rows


def on_gpu(dtype: torch.dtype, pairs: int) -> list[Row]:
    clock = partial(device_seconds, times=REPEATS)
    return against_torch(WIDTHS[-1], pairs, device="cuda", dtype=dtype, clock=clock)


def against_torch(
    width: int,
    pairs: int,
    *,
    goal: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    clock: Clock = cpu_seconds,
) -> list[Row]:
    """Forward, and forward with the gradient of the tokens."""
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(VIEWS, *GRID, width, generator=generator).to(device, dtype)
    rowcol = (torch.rand(VIEWS, POINTS, 2, generator=generator) * torch.tensor(GRID) - 0.5).to(device)
    ours = partial(sample_tokens, rowcol=rowcol)
    peer = partial(by_grid_sample, uv=(2 * rowcol.flip(-1) + 1) / torch.tensor(GRID[::-1]).to(device) - 1)
    moved = stored.movedim(-1, 1)
    given = (moved, moved.contiguous())
    if dtype == torch.float32:
        torch.testing.assert_close(ours(stored), peer(moved), rtol=1e-4, atol=1e-4)
    rows = []
    for what, way in {"forward": forward, "gradient": gradient}.items():
        peers = [partial(way, peer, tokens) for tokens in given]
        name = f"sample_tokens, D={width:,} {str(dtype).removeprefix('torch.')} on {device}, {what}"
        rows.append(peer_ratio(name, partial(way, ours, stored), peers, pairs, goal=goal, clock=clock))
    return rows


def forward(sample: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
    with torch.no_grad():
        sample(tokens)


def gradient(sample: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
    sample(tokens.detach().requires_grad_()).sum().backward()


def by_grid_sample(maps: Tensor, uv: Tensor) -> Tensor:
    """[V, N, D] of maps [V, D, R, C] at (u, v) [V, N, 2] in [-1, 1]."""
    sampled = grid_sample(maps, uv[:, None].to(maps.dtype), padding_mode="border", align_corners=False)
    return sampled[:, :, 0].mT.contiguous()


if __name__ == "__main__":
    sys.exit(run_alone(measure, "Bilinear samples of token maps against torch's grid_sample.", pairs=15))
