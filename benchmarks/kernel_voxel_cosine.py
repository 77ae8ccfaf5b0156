"""The compiled correspondence score against the chunked matrix of all pairs, and against a GPU's bandwidth.

    python benchmarks/kernel_voxel_cosine.py [--check] [--pairs 15]

On a processor the peer is `all_pairs` of `correspondence.py`, which says how it is timed: the published
method as published, for every layer. Unit vectors are cast to half precision, chunks of 2,048 rows are
multiplied with all tokens, and masks pick the similarities that are added up. That is what is judged, with
our plan made anew for every layer. Processors without arithmetic of half precision multiply it several times
slower than float32, so the same method in float32 is printed beside: for our plan made anew, for the plan
used again, and for tokens in f16 as the store holds them. Both sides run on one thread and take turns, the
slow published peer a third as often; a ratio is the peer's CPU seconds over ours. `--check` exits 1 when a
judged median is below its goal: 1,500 at 16,384 tokens, 5,000 at 65,536.

On a GPU, if there is one: 1,048,576 tokens of 1,024 channels in f16, with the plan used again. The peer is a
copy of 4 GiB in the same run, by device events; what is compared is bytes per second, of ours the tokens
alone. `--check` wants 0.7 of the copy.

Shapes: L tokens of all views, D channels.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial

import torch
from correspondence import CHUNK, LAYERS, WIDTH, agree, all_pairs, inputs, layers
from judge import Row, alternate, cpu_seconds, device_seconds, median_interval, run_alone
from strata.kernels.voxel_cosine import voxel_cosine, voxel_segments

GOALS = {16_384: 1_500, 65_536: 5_000}
GPU_TOKENS, GPU_WIDTH, GPU_VIEWS, GPU_GOAL = 1 << 20, 1024, 4, 0.7
COPIED_BYTES, WARM_UP = 1 << 32, 3
MIN_PAIRS = 3


def measure(pairs: int) -> list[Row]:
    """All rows that this machine can measure."""
    torch.set_num_threads(1)
    assert agree(*inputs(4096))
    rows = [row for length in GOALS for row in processor(length, pairs)]
    return [*rows, gpu(pairs)] if torch.cuda.is_available() else rows


def processor(length: int, pairs: int) -> list[Row]:
    tokens, ids = inputs(length)
    small, plan = tokens.half(), voxel_segments(ids)
    anew = {"plan made anew": partial(voxel_cosine, tokens, ids)}
    again = {
        "plan used again": partial(voxel_cosine, tokens, ids, plan=plan),
        "plan used again, f16": partial(voxel_cosine, small, ids, plan=plan),
    }
    published = partial(all_pairs, tokens, ids, dtype=torch.float16)
    return [
        *against("published", published, anew, length, max(MIN_PAIRS, pairs // 3), GOALS[length]),
        *against("float32", partial(all_pairs, tokens, ids), anew | again, length, pairs),
    ]


def against(
    name: str,
    peer: Callable[[list[int]], object],
    ours: Mapping[str, Callable[[], object]],
    length: int,
    pairs: int,
    goal: float | None = None,
) -> list[Row]:
    """A row for each way of ours over the peer, of which chunks are timed."""
    chunks = -(-length // CHUNK)
    timed = sorted({0, chunks - 1})
    # One run of the peer, which takes most of the time, beside each kind of ours.
    turns = alternate(
        lambda: {way: cpu_seconds(partial(layers, work)) for way, work in ours.items()},
        partial(cpu_seconds, partial(peer, timed)),
        pairs,
    )
    rows = []
    for way in ours:
        ratios = [LAYERS * other * chunks / len(timed) / own[way] for own, other in turns]
        median, low, high = median_interval(ratios)
        own_ms = 1e3 * statistics.median(own[way] for own, _ in turns) / LAYERS
        label = f"L={length:,} D={WIDTH} {way}, over {name}"
        note = f"{own_ms:.2f} CPU ms a layer"
        rows.append(Row(name=label, value=median, low=low, high=high, unit="times", goal=goal, note=note))
    return rows


def gpu(pairs: int) -> Row:
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (1, GPU_VIEWS, GPU_TOKENS // GPU_VIEWS)
    tokens = torch.randn(*shape, GPU_WIDTH, generator=generator, device="cuda", dtype=torch.float16)
    ids = torch.randint(-1, GPU_TOKENS // 4, shape, generator=generator, device="cuda")
    plan = voxel_segments(ids)
    source = torch.empty(COPIED_BYTES // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    ours, peer = partial(voxel_cosine, tokens, ids, plan=plan), partial(target.copy_, source)
    for _ in range(WARM_UP):
        ours()
        peer()
    turns = alternate(partial(device_seconds, ours), partial(device_seconds, peer), pairs)
    rates = [(tokens.nbytes / own) / (COPIED_BYTES / other) for own, other in turns]
    median, low, high = median_interval(rates)
    own_ms = 1e3 * statistics.median(own for own, _ in turns)
    name = f"{torch.cuda.get_device_name()} L={GPU_TOKENS:,} D={GPU_WIDTH}"
    note = f"{own_ms:.2f} ms a layer"
    return Row(name=name, value=median, low=low, high=high, unit="of a copy", goal=GPU_GOAL, note=note)


if __name__ == "__main__":
    sys.exit(run_alone(measure, "The correspondence score against all pairs.", pairs=15))
