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
    mutual,
    nearest_cosine,
    over_views,
    rank_of_positive,
    ratio_weight,
    reference,
    refine,
    separation,
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


def test_lists_of_pairs():
    pairs = torch.tensor([[1, 0, 5], [1, 4, 0], [1, 0, 4], [1, 0, 4], [0, 2, 3]]).unbind(1)
    lists = TokenLists.from_pairs((2, 2, 3), pairs)
    there = {}
    for place in (lists.stop > lists.start).nonzero().tolist():
        start, stop = int(lists.start[tuple(place)]), int(lists.stop[tuple(place)])
        there[tuple(place)] = lists.rows[start:stop].tolist()
    # Flattened rows of set 1 start at 6, those of its view 1 at 9.
    assert there == {
        (0, 0, 1, 2): [3],
        (0, 1, 0, 0): [2],
        (1, 0, 1, 0): [10, 11],
        (1, 1, 0, 1): [6],
        (1, 1, 0, 2): [6],
    }


def test_what_has_no_cell_has_no_list():
    lists = TokenLists.from_ids(torch.tensor([[[0], [1]], [[-1], [1]]]))
    assert bool((lists.start == lists.stop).all())


@pytest.mark.parametrize("pair", [(0, 0, 1), (0, 0, 6), (0, -1, 4), (2, 0, 4)])
def test_a_pair_that_joins_no_two_views_is_refused(pair: tuple[int, int, int]):
    with pytest.raises(ProbeError, match="joins no two views"):
        TokenLists.from_pairs((2, 2, 3), tuple(torch.tensor([part]) for part in pair))


def test_a_giant_cell_shares_its_list():
    lists = TokenLists.from_ids(torch.zeros(1, 3, 500, dtype=torch.int64))
    assert len(lists.rows) == 1500
    valid = torch.ones(1, 3, 500, dtype=torch.bool)
    valid[0, 1, :100] = False
    assert lists.count(valid)[0, :, :, 0].tolist() == [[0, 400, 500], [500, 0, 500], [500, 400, 0]]


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


def found_keys(keys: list, cosine: list | None = None) -> NearestCosine:
    """A result [1, V, V, P, K] by hand."""
    table = torch.tensor([keys])
    similar = torch.zeros(table.shape) if cosine is None else torch.tensor([cosine])
    valid = torch.ones(1, table.shape[1], table.shape[3], dtype=torch.bool)
    return NearestCosine(valid=valid, keys=table, cosine=similar.where(table >= 0, -torch.inf))


def test_rank_of_the_first_that_corresponds():
    none = [[-1, -1]] * 4
    found = found_keys([[none, [[3, 1], [2, 3], [0, 1], [0, 1]]], [[[0, 1]] * 4, none]])
    labels = PairLabels.from_ids(torch.tensor([[[7, 7, 9, 7], [8, 7, 9, 9]]]))
    rank = rank_of_positive(found, labels)
    assert rank[0, 0, 1].tolist() == [1, 2, 2, 1]
    assert rank[0, 1, 0].tolist() == [-1, 0, 2, 2]
    found.valid[0, 1, 1] = False  # the only token that corresponded
    assert rank_of_positive(found, labels)[0, 0, 1].tolist() == [-1, -1, 2, -1]
    with pytest.raises(ProbeError, match="not known"):
        rank_of_positive(found, PairLabels(valid=found.valid))


def test_mutual_nearest_neighbours():
    none = [[-1]] * 3
    found = found_keys([[none, [[2], [0], [-1]]], [[[1], [1], [0]], none]])
    assert mutual(found)[0, 0, 1].tolist() == [True, True, False]
    assert mutual(found)[0, 1, 0].tolist() == [True, False, True]


def test_ratio_weight():
    found = found_keys(
        [[[[0, 1], [0, 1], [0, -1], [-1, -1]]]], [[[[0.92, 0.68], [0.5, 0.5], [0.2, 0], [0, 0]]]]
    )
    assert ratio_weight(found)[0, 0, 0].tolist() == pytest.approx([0.5, 0, 1, 0])
    with pytest.raises(ProbeError, match="k=2"):
        ratio_weight(found_keys([[[[0]]]]))


def test_nearest_over_all_views():
    found = found_keys([[[[-1, -1]], [[4, 2]], [[3, 5]]]], [[[[0, 0]], [[0.5, 0.3]], [[0.5, 0.4]]]])
    view, key, cosine = over_views(found)
    assert (view[0, 0, 0].tolist(), key[0, 0, 0].tolist()) == ([1, 2], [4, 3])
    assert cosine[0, 0, 0].tolist() == [0.5, 0.5]
    found = found_keys([[[[-1, -1]], [[4, -1]]]])
    assert over_views(found)[0][0, 0, 0].tolist() == [1, -1]


def exact_separation(positive: torch.Tensor, negative: torch.Tensor) -> tuple[float, float]:
    """ROC-AUC and average precision of a sort of all similarities, ties by threshold."""
    values, order = torch.cat((positive, negative)).sort(descending=True)
    hit = (order < len(positive)).double()
    last = torch.cat((values.diff() != 0, torch.tensor([True])))
    tp, fp = hit.cumsum(0)[last], (1 - hit).cumsum(0)[last]
    step_tp, step_fp = (tp.diff(prepend=tp.new_zeros(1)), fp.diff(prepend=fp.new_zeros(1)))
    auc = float(((tp - step_tp / 2) * step_fp).sum()) / len(positive) / len(negative)
    return auc, float((step_tp * tp / (tp + fp)).sum()) / len(positive)


@pytest.mark.parametrize("strength", [0.1, 0.3, 1.0])
def test_separation_is_within_its_bound_of_a_sort_of_all_pairs(strength: float):
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 150, (1, 3, 600), generator=g)
    tokens = strength * torch.randn(150, 64, generator=g)[ids] + torch.randn(1, 3, 600, 64, generator=g)
    labels = PairLabels.from_ids(ids)
    found = nearest_cosine(tokens, labels)
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1)[0].flatten(0, 1)
    view = torch.arange(1800) // 600
    cross, same = view[:, None] < view, ids.flatten()[:, None] == ids.flatten()
    similar = unit @ unit.T
    auc, precision = exact_separation(similar[cross & same], similar[cross & ~same])
    assert 0.5 < auc < 0.9999
    apart = separation(found.corr.sum(1), found.noncorr)
    for value, error, exact in (
        (apart.auc, apart.auc_error, auc),
        (apart.average_precision, apart.average_precision_error, precision),
    ):
        assert 0 < float(error) < 1e-4
        assert abs(float(value) - exact) <= float(error)


@pytest.mark.parametrize("bins", [1, 3, 50])
def test_bounds_hold_in_any_order_within_bins(bins: int):
    g = torch.Generator().manual_seed(bins)
    for _ in range(20):
        positive, negative = torch.rand(7, generator=g).double(), torch.rand(300, generator=g).double() ** 2
        corr, noncorr = (torch.histc(values, bins, 0, 1) for values in (positive, negative))
        apart = separation(corr, noncorr)
        auc, precision = exact_separation(positive, negative)
        assert abs(float(apart.auc) - auc) <= float(apart.auc_error) + 1e-12
        assert abs(float(apart.average_precision) - precision) <= float(apart.average_precision_error) + 1e-9


def test_separation_by_hand():
    one = separation(torch.tensor([1]), torch.tensor([1]))  # in one bin: 1 in one order, 1/2 in the other
    assert (float(one.auc), float(one.auc_error)) == (0.5, 0.5)
    assert float(one.average_precision) == pytest.approx(2 / 3)
    assert float(one.average_precision_error) == pytest.approx(1 / 3)
    corr, noncorr = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]]), torch.tensor([1, 0, 1, 0])
    apart = separation(corr, noncorr)
    assert apart.auc.tolist() == pytest.approx([0.75, math.nan], nan_ok=True)
    assert float(apart.average_precision[0]) == pytest.approx((1 + 2 / 3) / 2)
    assert (float(apart.auc_error[0]), float(apart.average_precision_error[0])) == pytest.approx((0, 0))


def bump(row: float, column: float, twist: float = 0.0) -> torch.Tensor:
    """Similarities [1, 3, 3] with a maximum at an offset."""
    y, x = torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij")
    return (0.9 - 0.1 * (y - row) ** 2 - 0.05 * (x - column) ** 2 - twist * (y - row) * (x - column))[None]


def test_the_quadratic_is_found_exactly():
    from strata.kernels.nearest_cosine.refine import peak

    there = torch.ones(1, 3, 3, dtype=torch.bool)
    assert peak(bump(0.3, -0.2, 0.04), there)[0].tolist() == pytest.approx([0.3, -0.2], abs=1e-5)
    assert peak(bump(0.9, 0.1), there)[0].tolist() == pytest.approx([0.5, 0.1], abs=1e-5)
    assert peak(-bump(0.3, -0.2), there)[0].tolist() == [0, 0]
    there[0, 0] = False  # the upper border
    assert peak(bump(0.3, -0.2), there)[0].tolist() == pytest.approx([0, -0.2], abs=1e-5)


def test_refined_matches_of_a_shifted_view():
    """View 1 sees the same smooth field a fraction of a token further on."""
    rows, columns = 5, 6
    y, x = (
        axis.flatten().float() for axis in torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    )
    g = torch.Generator().manual_seed(0)
    frequency = 0.5 * torch.randn(256, 2, generator=g)

    def field(shift: tuple[float, float]) -> torch.Tensor:
        phase = torch.stack((y + shift[0], x + shift[1]), -1) @ frequency.T
        return torch.cat((phase.cos(), phase.sin()), -1)

    tokens = torch.stack((field((0.25, -0.3)), field((0, 0))))[None]
    labels = PairLabels(valid=torch.ones(1, 2, rows * columns, dtype=torch.bool))
    found = nearest_cosine(tokens, labels, k=1)
    offset = refine(tokens, found, [(rows, columns)] * 2)
    assert offset.shape == (1, 2, 2, 30, 2)
    inner = (y > 0) & (y < 4) & (x > 0) & (x < 5)
    assert found.keys[0, 0, 1, inner, 0].tolist() == inner.nonzero()[:, 0].tolist()
    torch.testing.assert_close(
        offset[0, 0, 1, inner], torch.tensor([0.25, -0.3]).expand(int(inner.sum()), 2), atol=0.03, rtol=0
    )
    assert bool(offset[0, 0, 0].isnan().all())
    assert bool((offset[0, 0, 1, (y == 0)][:, 0] == 0).all())
    with pytest.raises(ProbeError, match="are not those of 2 views"):
        refine(tokens, found, [(5, 6), (6, 6)])


def test_a_neighbour_that_takes_no_part_is_not_used():
    tokens = torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(1))
    tokens[0, 0, 0] = tokens[0, 1, 4]
    tokens[0, 1, 1] = torch.nan  # above the middle
    labels = PairLabels(valid=torch.ones(1, 2, 9, dtype=torch.bool))
    found = nearest_cosine(tokens, labels, k=1)
    assert found.keys[0, 0, 1, 0].tolist() == [4]
    offset = refine(tokens, found, [(3, 3), (3, 3)])[0, 0, 1, 0]
    assert float(offset[0]) == 0
    assert 0 < abs(float(offset[1])) <= 0.5


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
