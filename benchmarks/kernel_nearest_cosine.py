"""Nearest tokens, recall, ROC-AUC and average precision against one product of all tokens, and faiss.

    python benchmarks/kernel_nearest_cosine.py [--check]

`measures` is all that the correspondence probe asks of a layer and set: unit vectors from tokens, the 5
nearest keys of each token in each other view, mutual nearest neighbours, recall@1 and @5, histograms of
corresponding and other pairs, ROC-AUC and average precision. Its labels are made once for all layers, and
not timed. `keys` is the search alone: tokens to the 5 nearest keys of each other view. The peers are one
product [L, D] x [D, L] of unit vectors in float32, and the exact search of faiss (IndexFlatIP, 5 keys of
all tokens, from unit vectors).

On the CPU everything runs on one thread: threads that wait for each other burn CPU time when the machine
is busy. The two take turns; a ratio is our CPU seconds over the peer's, printed as the median and its 95 %
interval. `--check` exits 1 when a median misses its goal: 0.7 of the product for the measures, 1.25 of
faiss for the keys. faiss is left out where it is not installed.

On a GPU, where there is one, device events time `keys` (float16 tokens, k = 1 and 5) and the search with
histograms. The rate is that of the flops of the view pairs, each multiplied once, over the rate of a
bfloat16 product measured in the same run; the goal is 0.5 for the keys at L = 131k. Memory is what is
allocated beside the tokens.

Shapes: L tokens of all views, D channels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from judge import Row, alternate, cpu_seconds, device_seconds, median_interval, run_alone
from strata.kernels.nearest_cosine import (
    PairLabels,
    mutual,
    nearest_cosine,
    rank_of_positive,
    separation,
)
from torch import Tensor

VIEWS, KEYS, TOKENS_PER_CELL = 4, 5, 16
CPU_SIZES = ((4096, 384), (4096, 1024), (16384, 384), (16384, 1024))
GPU_SIZE = (131072, 1024)


def inputs(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Tokens [1, V, L / V, D] that are partly those of their cell, and ids [1, V, L / V]."""
    generator = torch.Generator().manual_seed(length + width)
    shape = (1, VIEWS, length // VIEWS)
    ids = torch.randint(0, length // TOKENS_PER_CELL, shape, generator=generator)
    places = torch.randn(length // TOKENS_PER_CELL, width, generator=generator)
    return 0.3 * places[ids] + torch.randn(*shape, width, generator=generator), ids


def measures(tokens: Tensor, labels: PairLabels) -> list[Tensor]:
    """recall@1, recall@5, precision of mutual nearest neighbours, ROC-AUC and average precision."""
    nearest = nearest_cosine(tokens, labels, k=KEYS)
    rank, both = rank_of_positive(nearest, labels), mutual(nearest)
    assert nearest.corr is not None
    assert nearest.noncorr is not None
    apart = separation(nearest.corr.sum(1), nearest.noncorr)
    asked = (rank >= 0).sum()
    return [
        ((rank >= 0) & (rank < 1)).sum() / asked,
        ((rank >= 0) & (rank < KEYS)).sum() / asked,
        (rank[both] == 0).float().mean(),
        apart.auc,
        apart.average_precision,
    ]


def measure(pairs: int) -> list[Row]:
    """All rows of this machine, with as many pairs of timings for each ratio."""
    rows = [row for size in CPU_SIZES for row in _on_cpu(*size, pairs)]
    return rows + (_on_gpu(*GPU_SIZE, pairs) if torch.cuda.is_available() else [])


def _on_cpu(length: int, width: int, pairs: int) -> list[Row]:
    torch.set_num_threads(1)
    tokens, ids = inputs(length, width)
    labels, unlabelled = PairLabels.from_ids(ids), PairLabels(valid=ids >= 0)
    unit = torch.nn.functional.normalize(tokens.flatten(0, 2), dim=-1)
    product = torch.empty(length, length)
    keys = partial(nearest_cosine, tokens, unlabelled, k=KEYS)
    multiply = partial(torch.mm, unit, unit.T, out=product)
    size = f"L={length:,} D={width}"
    rows = [
        _ratio(f"{size} measures", "of the product", partial(measures, tokens, labels), multiply, 0.7, pairs)
    ]
    del multiply, product
    if search := _faiss_search(unit):
        rows.append(_ratio(f"{size} keys", "of faiss", keys, search, 1.25, pairs))
    return rows


def _faiss_search(unit: Tensor) -> Callable[[], object] | None:
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit.numpy())  # pyright: ignore[reportCallIssue]
    return partial(index.search, unit.numpy(), KEYS)  # pyright: ignore[reportCallIssue]


def _ratio(
    name: str, unit: str, ours: Callable[[], object], peer: Callable[[], object], goal: float, pairs: int
) -> Row:
    seconds = alternate(partial(cpu_seconds, ours), partial(cpu_seconds, peer), pairs)
    value, low, high = median_interval([own / other for own, other in seconds])
    return Row(name=name, unit=unit, value=value, low=low, high=high, goal=goal, below=True)


def _on_gpu(length: int, width: int, pairs: int) -> list[Row]:
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    flops = 2 * 8192**3 / _typical_seconds(partial(torch.matmul, matrix, matrix), pairs)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    copied = torch.empty_like(source)
    copy = 2 * source.numel() / _typical_seconds(partial(copied.copy_, source), pairs)
    tokens, ids = inputs(length, width)
    tokens, ids = tokens.half().cuda(), ids.cuda()
    labels, unlabelled = PairLabels.from_ids(ids), PairLabels(valid=ids >= 0)
    work = length**2 * width * (VIEWS - 1) / VIEWS  # 2 D flops for each pair of tokens of two views
    rows = [
        _plain("copy, device", "TB/s", copy / 1e12),
        _plain("bfloat16 product, device", "TFLOP/s", flops / 1e12),
    ]
    for name, goal, run in (
        ("keys k=1", 0.5, partial(nearest_cosine, tokens, unlabelled, k=1)),
        (f"keys k={KEYS}", 0.5, partial(nearest_cosine, tokens, unlabelled, k=KEYS)),
        ("keys and histograms", None, partial(nearest_cosine, tokens, labels, k=KEYS)),
    ):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        rate = work / _typical_seconds(run, pairs) / flops
        memory = (torch.cuda.max_memory_allocated() - before) / 2**30
        size = f"L={length:,} D={width} {name}, {memory:.1f} GiB"
        rows.append(Row(name=size, unit="of the product", value=rate, low=rate, high=rate, goal=goal))
    return rows


def _plain(name: str, unit: str, value: float) -> Row:
    return Row(name=name, unit=unit, value=value, low=value, high=value)


def _typical_seconds(work: Callable[[], object], times: int) -> float:
    work()
    return median_interval([device_seconds(work) for _ in range(times)])[0]


if __name__ == "__main__":
    sys.exit(run_alone(measure, "Nearest tokens against a product and faiss.", pairs=9))
