"""How far u8 features point from the exact ones: 1 - cos on noise, smooth maps, and massive channels.

    python benchmarks/store_u8.py [--check]

Four maps of 37 x 37 tokens of 384 and of 1,024 channels in f16, quantised per view and channel as stored.
The massive ones have channels of log-normal scale and four constant ones of up to 150 that vary by a fifth.
"""

from __future__ import annotations

import sys

import torch
from judge import Row, run_alone
from strata.kernels.quantized import quantize

VIEWS, SIDE, WIDTHS = 4, 37, (384, 1024)
MEAN, P999 = 5e-5, 1e-4


def features(kind: str, width: int) -> torch.Tensor:
    """[V, R, C, D] f16."""
    draw = torch.Generator().manual_seed(0)
    if kind == "random":
        return torch.randn(VIEWS, SIDE, SIDE, width, generator=draw).half()
    coarse = torch.randn(VIEWS, width, 6, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").permute(0, 2, 3, 1)
    if kind == "smooth":
        return smooth.half()
    scales = torch.exp(0.7 * torch.randn(width, generator=draw))
    shift = torch.zeros(width)
    shift[:4] = torch.tensor([150.0, -120.0, 90.0, 60.0])
    return (smooth * scales + shift * (1 + 0.2 * torch.randn(VIEWS, SIDE, SIDE, 1, generator=draw))).half()


def measure(pairs: int = 1) -> list[Row]:
    """Mean and 99.9th percentile of each kind and width."""
    rows = []
    for width in WIDTHS:
        for kind in ("random", "smooth", "massive"):
            exact = features(kind, width)
            away = 1 - torch.cosine_similarity(exact.double(), quantize(exact).dequantize().double(), dim=-1)
            for name, value, goal in (
                ("mean", away.mean(), MEAN),
                ("99.9 %", away.flatten().quantile(0.999), P999),
            ):
                value = float(value)
                title = f"D = {width:,}: u8, {kind}, 1 - cos, {name}"
                rows.append(
                    Row(name=title, value=value, low=value, high=value, unit="", goal=goal, below=True)
                )
    return rows


if __name__ == "__main__":
    sys.exit(run_alone(measure, __doc__ or "", pairs=1))
