"""Mean cosines of listed and of all other pairs against the product of all tokens with all.

One set of four views of 37 x 37 tokens, float32; every token is listed with three random tokens of each later
view, in six groups. The peer multiplies the unit vectors 1,024 rows at a time with all of them, and sums up
what is listed by group and what else is of different views. The plan is made once, as it is for all layers of
a set. Goal on a processor: at least 10 times as fast. One thread, CPU seconds, in turns. On a GPU the Triton
kernels against the definition in torch, between device events, without a goal.

    python benchmarks/kernel_pair_cosine.py --check
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import combinations

import torch
from judge import Row, device_seconds, peer_ratio, run_alone
from strata.kernels.pair_cosine import PairPlan, pair_cosine, pair_plan, reference
from torch import Tensor
from torch.nn.functional import normalize

VIEWS, TOKENS, EACH, GROUPS, WIDTHS, ROWS, GOAL = 4, 37 * 37, 3, 6, (384, 1024), 1024, 10.0
REPEATS = 20


def measure(pairs: int) -> list[Row]:
    """The rows of a processor from so many pairs of runs, and those of the GPU where there is one."""
    torch.set_num_threads(1)
    rows = [on_processor(width, pairs) for width in WIDTHS]
    return [*rows, on_gpu(WIDTHS[-1], pairs)] if torch.cuda.is_available() else rows


def on_processor(width: int, pairs: int) -> Row:
    tokens, listed, group = inputs(width)
    plan = plan_of(listed, group)
    ours, peer = partial(pair_cosine, tokens, plan), partial(all_pairs, tokens, listed, group)
    score, (by_group, rest) = ours(), peer()
    torch.testing.assert_close(score.group_sum[0], by_group, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(score.rest_sum[0], rest, rtol=1e-5, atol=1.0)
    return peer_ratio(
        f"pair_cosine, {VIEWS} x {TOKENS:,} tokens, D={width:,}", ours, [peer], pairs, goal=GOAL
    )


def on_gpu(width: int, pairs: int) -> Row:
    tokens, listed, group = inputs(width)
    tokens, plan = tokens.cuda(), plan_of(listed.cuda(), group.cuda())
    ours, peer = partial(pair_cosine, tokens, plan), partial(reference.pair_cosine, tokens, plan)
    torch.testing.assert_close(ours().group_sum, peer().group_sum, rtol=1e-5, atol=1e-3)
    clock = partial(device_seconds, times=REPEATS)
    name = f"{torch.cuda.get_device_name()} pair_cosine, D={width:,}"
    return peer_ratio(name, ours, [peer], pairs, clock=clock)


def inputs(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [1, V, P, D], listed pairs [2, M] of the V * P tokens, each once, and their groups [M]."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, VIEWS, TOKENS, width, generator=generator)
    own = torch.arange(TOKENS).repeat_interleave(EACH)
    found = []
    for v, w in combinations(range(VIEWS), 2):
        start = torch.randint(TOKENS, (TOKENS, 1), generator=generator)
        other = (start + torch.arange(EACH)).flatten() % TOKENS
        found.append(torch.stack((v * TOKENS + own, w * TOKENS + other)))
    listed = torch.cat(found, dim=1)
    return tokens, listed, torch.randint(GROUPS, (listed.shape[1],), generator=generator)


def plan_of(listed: Tensor, group: Tensor) -> PairPlan:
    valid = torch.ones(1, VIEWS, TOKENS, dtype=torch.bool, device=listed.device)
    return pair_plan(valid, (torch.zeros_like(group), listed[0], listed[1]), group, GROUPS)


def all_pairs(tokens: Tensor, listed: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [G] of the listed pairs and of all others, f64, from every cosine."""
    unit = normalize(tokens[0].flatten(0, 1), dim=-1)
    view = torch.arange(len(unit)) // TOKENS
    by_group, everything = torch.zeros(GROUPS, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for start in range(0, len(unit), ROWS):
        cosine = unit[start : start + ROWS] @ unit.T
        later = view[start : start + ROWS, None] < view
        everything += cosine.where(later, 0.0).sum(dtype=torch.float64)
        here = (listed[0] >= start) & (listed[0] < start + ROWS)
        found = cosine[listed[0, here] - start, listed[1, here]]
        by_group.index_add_(0, group[here], found.double())
    return by_group, everything - by_group.sum()


if __name__ == "__main__":
    sys.exit(run_alone(measure, "Mean cosines of listed pairs against all pairs.", pairs=9))
