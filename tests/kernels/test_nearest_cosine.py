"""Nearest tokens and their histograms against a loop over all pairs in float64."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from strata.errors import ProbeError
from strata.kernels.nearest_cosine import (
    NearestCosine,
    PairLabels,
    TokenLists,
    cpu,
    nearest_cosine,
    rank_of_positive,
    reference,
)
from strata.kernels.nearest_cosine.loops import BAND, PART

BINS = 64
PATHS = [reference, cpu]
Pairs = set[tuple[int, int, int, int, int]]
"""(set, view, token, view, token), both ways round."""


def by_pairs(tokens: torch.Tensor, valid: torch.Tensor, positive: Pairs, ignored: Pairs, k: int):
    """The answer by definition: keys and cosines by (set, v, w, p), and lists of similarities by label."""
    sets, views, places, _ = tokens.shape
    length = tokens.double().norm(dim=-1)
    takes_part = valid & length.isfinite()
    unit = tokens.double() / length.clamp_min(1e-12)[..., None]
    nearest, similar = {}, {True: [], False: []}
    for b, v, w in itertools.product(range(sets), range(views), range(views)):
        if v == w:
            continue
        for p in range(places):
            found = []
            for q in range(places):
                pair = (b, v, p, w, q)
                if not (takes_part[b, v, p] and takes_part[b, w, q]) or pair in ignored:
                    continue
                cosine = float(unit[b, v, p] @ unit[b, w, q])
                found.append((-cosine, q))
                if v < w:
                    similar[pair in positive].append(cosine)
            nearest[b, v, w, p] = [(q, -minus) for minus, q in sorted(found)][:k]
    return nearest, similar


def check(found: NearestCosine, tokens, labels: PairLabels, positive: Pairs, ignored: Pairs) -> None:
    sets, views, _, places, k = found.keys.shape
    nearest, similar = by_pairs(tokens, labels.valid, positive, ignored, k)
    assert found.keys.dtype == torch.int64
    for b, v, w, p in itertools.product(range(sets), range(views), range(views), range(places)):
        expected = nearest.get((b, v, w, p), [])
        keys, cosines = found.keys[b, v, w, p].tolist(), found.cosine[b, v, w, p].tolist()
        assert keys == [q for q, _ in expected] + [-1] * (k - len(expected))
        assert cosines[: len(expected)] == pytest.approx([cosine for _, cosine in expected], abs=1e-6)
        assert all(cosine == -math.inf for cosine in cosines[len(expected) :])
    assert found.corr is not None
    assert found.noncorr is not None
    bins = found.noncorr.shape[-1]
    for counted, cosines in ((found.corr.sum(1), similar[True]), (found.noncorr, similar[False])):
        exact = torch.tensor(cosines, dtype=torch.float64)
        places_of = ((exact + 1) * (bins / 2)).floor().clamp(0, bins - 1).long()
        assert int(counted.sum()) == len(cosines)
        # Rounding may carry a similarity over the edge of a bin, not further.
        assert bool(((counted.sum(0) - torch.bincount(places_of, minlength=bins)).abs() <= 1).all())


def random_set(sets: int, views: int, places: int, width: int, dtype=torch.float32, seed: int = 0):
    """Tokens, labels by cells with some ignored pairs, and the same pairs one by one."""
    g = torch.Generator().manual_seed(1000 * places + views + seed)
    tokens = torch.randn(sets, views, places, width, generator=g).to(dtype)
    ids = torch.randint(-1, max(places // 2, 1), (sets, views, places), generator=g)
    positive: Pairs = set()
    ignored: Pairs = set()
    chosen = []
    for b, v, w in itertools.product(range(sets), range(views), range(views)):
        if v != w:
            same = (ids[b, v, :, None] == ids[b, w]) & (ids[b, v, :, None] >= 0)
            positive |= {(b, v, p, w, q) for p, q in same.nonzero().tolist()}
    for _ in range(places if views > 1 else 0):
        b = int(torch.randint(0, sets, (), generator=g))
        v, w = torch.randperm(views, generator=g)[:2].tolist()
        p, q = torch.randint(0, places, (2,), generator=g).tolist()
        ignored |= {(b, v, p, w, q), (b, w, q, v, p)}
        chosen.append((b, v * places + p, w * places + q))
    pairs = torch.tensor(chosen, dtype=torch.int64).reshape(-1, 3).unbind(1)
    labels = PairLabels(
        valid=ids >= 0,
        positive=TokenLists.from_ids(ids),
        ignored=TokenLists.from_pairs((sets, views, places), pairs),
    )
    return tokens, labels, positive - ignored, ignored


@pytest.mark.parametrize("path", PATHS, ids=["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 1, 3), (2, 3, 17, 5), (1, 1, 5, 4), (1, 2, 40, 9)], ids=str)
def test_equals_all_pairs(path: ModuleType, shape: tuple[int, ...], dtype: torch.dtype):
    tokens, labels, positive, ignored = random_set(*shape, dtype=dtype)
    check(path.nearest_cosine(tokens, labels, k=3, bins=BINS), tokens, labels, positive, ignored)


def test_tiles_and_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch):
    tokens, labels, _, _ = random_set(1, 3, 300, 6)
    expected = nearest_cosine(tokens, labels, k=4, bins=BINS)
    monkeypatch.setattr(cpu, "TILE", 1)
    monkeypatch.setattr(cpu, "ROWS", 70)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = nearest_cosine(tokens, labels, k=4, bins=BINS)
    assert torch.equal(found.keys, expected.keys)
    assert torch.equal(found.noncorr, expected.noncorr)
    assert torch.equal(found.corr, expected.corr)
    torch.testing.assert_close(found.cosine, expected.cosine)


@pytest.mark.parametrize("path", PATHS, ids=["reference", "cpu"])
def test_zeros_have_cosine_zero_and_what_is_not_finite_takes_no_part(path: ModuleType):
    tokens, labels, positive, ignored = random_set(1, 3, 11, 4)
    tokens[0, 0, :3] = 0
    tokens[0, 1, 2, 1] = torch.nan
    tokens[0, 2, 3, 0] = torch.inf
    tokens[0, 2, 4, 0] = 3e38  # whose square overflows
    found = path.nearest_cosine(tokens, labels, k=11, bins=BINS + 1)  # an odd number: 0 is inside a bin
    tokens[0, 2, 4, 0] = torch.inf
    check(found, tokens, labels, positive, ignored)
    assert not found.valid[0, 1, 2]
    assert not found.valid[0, 2, 4]


@pytest.mark.parametrize("path", PATHS, ids=["reference", "cpu"])
def test_the_lower_key_comes_first_among_equals(path: ModuleType):
    tokens = torch.zeros(1, 2, 40, 2)
    tokens[0, 0, :, 0] = 1
    tokens[0, 1, ::3, 0] = 1
    labels = PairLabels(valid=torch.ones(1, 2, 40, dtype=torch.bool))
    found = path.nearest_cosine(tokens, labels, k=5, bins=BINS)
    assert found.keys[0, 0, 1].tolist() == [[0, 3, 6, 9, 12]] * 40
    assert found.keys[0, 1, 0].tolist() == [[0, 1, 2, 3, 4]] * 40
    assert found.corr is None


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("equals", [False, True])
def test_bounds_from_maxima_lose_no_key(monkeypatch: pytest.MonkeyPatch, equals: bool, k: int):
    g = torch.Generator().manual_seed(k)
    shape = (1, 2, 7 * PART + 3)
    tokens = torch.randn(*shape, 6, dtype=torch.float64, generator=g)
    if equals:  # cosines of 0 and 1, most of them as great as others
        tokens = torch.eye(6)[torch.randint(0, 6, shape, generator=g)]
    tokens[0, 1, :PART] = tokens[0, 0, 0]  # the best of one token, which then are ignored
    pairs = torch.tensor([(0, 0, shape[2] + q) for q in range(PART)]).unbind(1)
    valid = torch.ones(shape, dtype=torch.bool)
    labels = PairLabels(valid=valid, ignored=TokenLists.from_pairs(shape, pairs))
    expected = reference.nearest_cosine(tokens, labels, k=k, bins=BINS)
    monkeypatch.setattr(cpu, "TILE", 1)
    monkeypatch.setattr(cpu, "ROWS", 3 * BAND * k)
    found = cpu.nearest_cosine(tokens, labels, k=k, bins=BINS)
    assert torch.equal(found.keys, expected.keys)


@pytest.mark.parametrize("path", PATHS, ids=["reference", "cpu"])
@pytest.mark.parametrize("shape", [(0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 3, 4)], ids=str)
def test_nothing_to_find(path: ModuleType, shape: tuple[int, int, int]):
    labels = PairLabels.from_ids(torch.full(shape, -1))
    found = path.nearest_cosine(torch.randn(*shape, 5), labels, k=2, bins=BINS)
    assert found.keys.shape == (shape[0], shape[1], shape[1], shape[2], 2)
    assert bool((found.keys == -1).all())
    assert int(found.corr.sum()) == int(found.noncorr.sum()) == 0
    assert bool((rank_of_positive(found, labels) == -1).all())


@pytest.mark.parametrize("path", PATHS, ids=["reference", "cpu"])
def test_positives_count_by_group(path: ModuleType):
    tokens, labels, positive, _ = random_set(2, 3, 9, 4)
    group = torch.randint(0, 3, (2, 3, 3, 9), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    grouped = PairLabels(**{**vars(labels), "group": group, "groups": 3})
    found = path.nearest_cosine(tokens, grouped, k=1, bins=BINS)
    expected = torch.zeros(2, 3, dtype=torch.int64)
    for b, v, p, w, q in positive:
        if v < w and labels.valid[b, v, p] and labels.valid[b, w, q]:
            expected[b, int(group[b, v, w, p])] += 1
    assert torch.equal(found.corr.sum(-1), expected)


def test_stored_bytes_are_dequantised():
    g = torch.Generator().manual_seed(3)
    stored = torch.randint(0, 256, (1, 2, 9, 5), generator=g, dtype=torch.uint8)
    scale, offset = torch.rand(1, 2, 5, generator=g), torch.randn(1, 2, 5, generator=g)
    labels = PairLabels.from_ids(torch.zeros(1, 2, 9, dtype=torch.int64))
    values = stored * scale[:, :, None] + offset[:, :, None]
    found = nearest_cosine(stored, labels, scale=scale, offset=offset)
    expected = nearest_cosine(values, labels)
    assert torch.equal(found.keys, expected.keys)
    torch.testing.assert_close(found.cosine, expected.cosine)


def test_without_numba_the_definition_runs(monkeypatch: pytest.MonkeyPatch):
    tokens, labels, positive, ignored = random_set(1, 2, 7, 4)
    package = sys.modules["strata.kernels.nearest_cosine"]
    monkeypatch.delattr(package, "cpu")
    monkeypatch.setitem(sys.modules, "strata.kernels.nearest_cosine.cpu", None)
    assert package._backend(torch.device("cpu")) is reference
    check(nearest_cosine(tokens, labels, k=2, bins=BINS), tokens, labels, positive, ignored)


@pytest.mark.parametrize(
    "change",
    [
        {"k": 0},
        {"bins": 0},
        {"tokens": torch.zeros(1, 2, 4, 5)},
        {"tokens": torch.zeros(2, 3, 5)},
        {"tokens": torch.zeros(1, 2, 3, 5, device="meta")},
        {"tokens": torch.zeros(1, 2, 3, 5, dtype=torch.uint8)},
        {"scale": torch.zeros(1, 2, 5), "offset": torch.zeros(1, 2, 5)},
        {
            "tokens": torch.zeros(1, 2, 3, 5, dtype=torch.uint8),
            "scale": torch.ones(5),
            "offset": torch.ones(5),
        },
    ],
    ids=["k", "bins", "sets", "dimensions", "device", "no scale", "scale of floats", "scale of no view"],
)
def test_what_does_not_fit_is_refused(change: dict):
    labels = PairLabels.from_ids(torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(ProbeError):
        nearest_cosine(**{"tokens": torch.zeros(1, 2, 3, 5), "labels": labels, **change})


def test_the_kernels_equal_the_definition(run_interpreted: Callable[[str], None]):
    run_interpreted("interpreted_nearest_cosine.py")


def test_launches_cover_every_block_of_every_pair_once(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    from strata.kernels.nearest_cosine import gpu

    for limit, pairs, blocks in itertools.product((1, 40, 100, 10_000), (1, 6), (1, 7)):
        monkeypatch.setattr(gpu, "CANDIDATES", limit)
        covered = [
            (pair, block)
            for one in gpu.launches(pairs, blocks, 10)
            for pair in range(one.pairs.start, one.pairs.stop)
            for block in range(one.blocks.start, one.blocks.stop)
        ]
        assert sorted(covered) == list(itertools.product(range(pairs), range(blocks)))
        most = max(
            (one.pairs.stop - one.pairs.start) * (one.blocks.stop - one.blocks.start)
            for one in gpu.launches(pairs, blocks, 10)
        )
        assert most * 10 <= max(limit, 10)
