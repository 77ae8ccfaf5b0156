"""The kernels of nearest_cosine in Triton's interpreter, small tiles and few candidates a launch."""

from __future__ import annotations

import pytest
import torch
from strata.kernels.nearest_cosine import PairLabels, TokenLists, gpu, kernel, reference

POISON = (1 << 63) - 1
"""Nearer than every candidate: one that a kernel leaves unwritten would win."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def poisoned(*args, **options) -> torch.Tensor:
        made = empty(*args, **options)
        return made.fill_(
            torch.nan if made.is_floating_point() else POISON if made.dtype == torch.int64 else 0
        )

    monkeypatch.setattr(torch, "empty", poisoned)
    for name, value in {"ROWS": 32, "COLUMNS": 32, "DEPTH": 32, "MERGED": 32, "COPIES": 2}.items():
        monkeypatch.setattr(kernel, name, value)


def labelled(sets: int, views: int, places: int, g: torch.Generator, ignored: bool) -> PairLabels:
    ids = torch.randint(-1, max(places // 3, 1), (sets, views, places), generator=g)
    lists = None
    if ignored and views > 1:
        count = 3 * places
        i = torch.randint(0, places, (count,), generator=g)
        j = torch.randint(places, views * places, (count,), generator=g)
        number = torch.randint(0, sets, (count,), generator=g)
        lists = TokenLists.from_pairs((sets, views, places), (number, i, j))
    group = torch.randint(0, 2, (sets, views, views, places), generator=g).to(torch.uint8)
    return PairLabels(valid=ids >= 0, positive=TokenLists.from_ids(ids), ignored=lists, group=group, groups=2)


def check(tokens: torch.Tensor, labels: PairLabels, k: int, atol: float = 1e-6) -> None:
    found = gpu.nearest_cosine(tokens, labels, k=k, bins=50)
    # In float64, for products of another precision need not order what is nearly equal alike.
    expected = reference.nearest_cosine(tokens.double(), labels, k=k, bins=50)
    assert torch.equal(found.valid, expected.valid)
    torch.testing.assert_close(found.cosine.double(), expected.cosine, atol=atol, rtol=0)
    assert torch.equal(found.keys, expected.keys)
    if labels.positive is not None:
        for one, other in ((found.corr, expected.corr), (found.noncorr, expected.noncorr)):
            assert torch.equal(one.sum(-1), other.sum(-1))
            assert int(one.sub(other).abs().sum()) <= 4  # at the edges of bins


@pytest.mark.parametrize(
    ("shape", "k", "dtype"),
    [
        ((1, 2, 1, 3), 1, torch.float32),
        ((2, 2, 17, 16), 2, torch.float16),
        ((1, 2, 63, 40), 2, torch.bfloat16),
        ((1, 2, 65, 16), 5, torch.float32),
    ],
    ids=str,
)
def test_equals_the_definition(shape: tuple[int, ...], k: int, dtype: torch.dtype):
    g = torch.Generator().manual_seed(shape[2])
    tokens = torch.randn(*shape, generator=g).to(dtype)
    tokens[0, 0, 0, 0] = torch.nan
    tokens[0, -1, -1] = 0
    check(tokens, labelled(*shape[:3], g, ignored=True), k)


def test_a_launch_of_some_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "CANDIDATES", 100)  # one block of the two
    monkeypatch.setattr(gpu, "PROGRAMS", 1)
    g = torch.Generator().manual_seed(7)
    labels = labelled(1, 2, 37, g, ignored=False)
    check(torch.randn(1, 2, 37, 16, generator=g), PairLabels(valid=labels.valid), 2)


def test_equals_come_in_order():
    tokens = torch.ones(1, 2, 35, 16)
    tokens[0, 1, ::2] = -1
    tokens[0, 0, 5] = 0
    check(tokens, PairLabels(valid=torch.ones(1, 2, 35, dtype=torch.bool)), 3)


def test_a_block_without_candidates_leaves_nothing_behind():
    valid = torch.ones(1, 2, 40, dtype=torch.bool)
    valid[0, :, :32] = False
    tokens = torch.randn(1, 2, 40, 16, generator=torch.Generator().manual_seed(4))
    check(tokens, PairLabels(valid=valid), 3)


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (1, 2, 0, 4), (0, 2, 3, 4)], ids=str)
def test_nothing_to_find(shape: tuple[int, ...]):
    check(torch.ones(shape), PairLabels.from_ids(torch.zeros(shape[:3], dtype=torch.int64)), 2)


def test_nothing_valid():
    check(torch.ones(1, 2, 20, 4), PairLabels.from_ids(torch.full((1, 2, 20), -1)), 1)


def test_stored_bytes():
    g = torch.Generator().manual_seed(3)
    stored = torch.randint(0, 256, (1, 2, 9, 24), generator=g, dtype=torch.uint8)
    scale, offset = torch.rand(1, 2, 24, generator=g), torch.randn(1, 2, 24, generator=g)
    labels = PairLabels.from_ids(torch.zeros(1, 2, 9, dtype=torch.int64))
    found = gpu.nearest_cosine(stored, labels, k=1, bins=50, scale=scale, offset=offset)
    expected = reference.nearest_cosine(stored, labels, k=1, bins=50, scale=scale, offset=offset)
    torch.testing.assert_close(found.cosine, expected.cosine, atol=1e-3, rtol=0)
    assert int(found.corr.sum()) == int(expected.corr.sum()) == 81
