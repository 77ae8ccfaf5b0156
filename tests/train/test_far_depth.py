"""What is left out of depth, against numbers counted by hand and order statistics of the values."""

from __future__ import annotations

import numpy as np
import pytest
from strata.train.augment import MAPANYTHING, VGGT
from strata.train.far_depth import without_far


def test_a_quantile_by_hand():
    # Of 1, 2, 3, 4, 10 m the quantile 0.7 is 2.8 steps from the first: 3 + 0.8 * 1 = 3.8 m.
    depth = np.array([[0, 10, 2], [4, 0, 1], [3, 0, 0]], np.float32)
    expected = np.array([[0, 0, 2], [0, 0, 1], [3, 0, 0]], np.float32)
    assert np.array_equal(without_far(depth, 0.7), expected)
    assert without_far(depth, 0.7).dtype == np.float32
    # At 0.75 the limit is 4 m itself, which stays.
    assert np.array_equal(without_far(depth, 0.75), np.where(depth == 10, 0, depth))


@pytest.mark.parametrize("none", [0.0, 0.3, 0.97])
def test_what_has_no_depth_does_not_count(none: float):
    rng = np.random.default_rng(0)
    depth = rng.gamma(2, 3, (61, 83)).astype(np.float32) + 0.1
    depth[rng.random(depth.shape) < none] = 0
    values = sorted(float(value) for value in depth.ravel() if value)
    below, part = divmod(0.98 * (len(values) - 1), 1)
    limit = values[int(below)] + part * (values[int(below) + 1] - values[int(below)])
    after = without_far(depth, 0.98)
    for before, now in zip(depth.ravel().tolist(), after.ravel().tolist(), strict=True):
        assert now == (0 if before > limit else before)
    assert 0 < (after > 0).sum() < len(values)


def test_nothing_is_left_out_of_flat_or_empty_depth_and_where_it_is_not_asked():
    for depth in (np.zeros((3, 4), np.float32), np.full((3, 4), 2.5, np.float32)):
        assert np.array_equal(without_far(depth, VGGT.depth_share), depth)
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert without_far(depth, MAPANYTHING.depth_share) is depth
    assert VGGT.depth_share == 0.98
