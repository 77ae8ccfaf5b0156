"""Token points against their definition, in exact fractions and one pixel at a time."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from strata.extract.token_points import cell_starts, token_points

FITS = ("crop", "pad", "stretch")
BORDER = 20  # more than any box here reaches beyond its image
K_PX = np.array([[30.0, 0.5, 9.0], [0, 31.0, 7.0], [0, 0, 1]])
POSE = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def box(width: int, height: int, grid, fit: str) -> tuple[Fraction, Fraction]:
    """(width, height) in pixels of the centred box that the grid divides."""
    rows, cols = grid
    if fit == "stretch":
        return Fraction(width), Fraction(height)
    wide, tall = (
        (Fraction(height * cols, rows), Fraction(height)),
        (Fraction(width), Fraction(width * rows, cols)),
    )
    inside = wide if wide[0] <= width else tall
    around = tall if wide[0] <= width else wide
    return inside if fit == "crop" else around


def slow(depth: np.ndarray, grid, fit: str):
    """By cell: (row, column) of its pixel or None, whether it is valid, its spread."""
    height, width = depth.shape
    box_w, box_h = box(width, height, grid, fit)
    cells: dict[tuple[int, int], list] = {(r, c): [] for r in range(grid[0]) for c in range(grid[1])}
    pixels = dict.fromkeys(cells, 0)
    for v in range(-BORDER, height + BORDER):
        row = floor((v - Fraction(height - 1, 2) + box_h / 2) * grid[0] / box_h)
        for u in range(-BORDER, width + BORDER):
            col = floor((u - Fraction(width - 1, 2) + box_w / 2) * grid[1] / box_w)
            if (row, col) in cells:
                pixels[row, col] += 1
                if 0 <= u < width and 0 <= v < height and depth[v, u] > 0:
                    cells[row, col].append((Fraction(float(depth[v, u])), v, u))
    out = {}
    for cell, found in cells.items():
        if not found:
            out[cell] = (None, False, None)
            continue
        found.sort()
        median = found[(len(found) - 1) // 2][0]
        near = [d for d in found if abs(d[0] - median) <= median / 20]
        chosen = near[(len(near) - 1) // 2][0]
        pixel = min((v, u) for d, v, u in found if d == chosen)
        mean = sum(d for d, _, _ in near) / len(near)
        spread = float(sum((d - mean) ** 2 for d, _, _ in near) / len(near)) ** 0.5
        out[cell] = (pixel, 2 * len(found) >= pixels[cell], spread)
    return out


def depths(width: int, height: int, kind: str) -> np.ndarray:
    """Multiples of 1/64, so that 5 % of them and their differences are exact in float32."""
    rng = np.random.default_rng([width, height])
    if kind == "ties":
        depth = rng.integers(1, 4, (height, width)) * 1.25
    elif kind == "two surfaces":
        depth = (
            np.where(rng.random((height, width)) < 0.5, 1.25, 2.5) + rng.integers(-5, 6, (height, width)) / 64
        )
    else:
        depth = rng.integers(64, 80, (height, width)) / 64
    return np.where(rng.random((height, width)) < (0.5 if kind == "holes" else 0.1), 0, depth).astype(
        np.float32
    )


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (20, 16, (4, 6)),
        (16, 20, (6, 4)),
        (17, 13, (3, 4)),
        (24, 16, (4, 6)),
        (9, 31, (5, 2)),
        (7, 5, (9, 13)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["ties", "two surfaces", "holes"])
def test_it_is_the_definition(fit, width, height, grid, kind):
    depth = depths(width, height, kind)
    points = token_points(depth, K_PX, POSE, grid, fit)
    for (row, col), (pixel, valid, spread) in slow(depth, grid, fit).items():
        assert points.valid[row, col] == valid
        if pixel is None:
            assert np.isnan(points.world[row, col]).all()
            assert np.isnan(points.spread_m[row, col])
            continue
        v, u = pixel
        camera = np.linalg.inv(K_PX) @ [u, v, 1] * float(depth[v, u])
        np.testing.assert_allclose(points.world[row, col], POSE[:3, :3] @ camera + POSE[:3, 3], rtol=1e-5)
        np.testing.assert_allclose(points.spread_m[row, col], spread, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fit", FITS)
def test_cells_cover_the_box_without_gap(fit):
    rows, cols = cell_starts(101, 67, (5, 9), fit)
    assert (np.diff(rows) > 0).all()
    assert (np.diff(cols) > 0).all()
    if fit == "stretch":
        assert (rows[0], rows[-1], cols[0], cols[-1]) == (0, 67, 0, 101)
    if fit == "crop":
        assert rows[0] >= 0 and rows[-1] <= 67 and cols[0] >= 0 and cols[-1] <= 101  # noqa: PT018
    if fit == "pad":
        assert rows[0] <= 0 and rows[-1] >= 67 and cols[0] <= 0 and cols[-1] >= 101  # noqa: PT018


def test_an_edge_through_a_pixel_centre_gives_it_to_the_cell_behind():
    # 3 pixels in 2 cells: the middle pixel's centre lies on the edge between them.
    _, cols = cell_starts(3, 2, (1, 2), "stretch")
    assert cols.tolist() == [0, 1, 3]


def test_half_of_the_pixels_make_a_token_valid_and_one_less_does_not():
    depth = np.zeros((4, 4), np.float32)
    depth[:2] = 2
    assert token_points(depth, K_PX, POSE, (1, 1), "stretch").valid.tolist() == [[True]]
    depth[0, 0] = 0
    assert token_points(depth, K_PX, POSE, (1, 1), "stretch").valid.tolist() == [[False]]
    # Pixels that the border adds count as without depth.
    full = np.ones((4, 4), np.float32)
    assert token_points(full, K_PX, POSE, (1, 2), "pad").valid.all()
    assert not token_points(full, K_PX, POSE, (1, 3), "pad").valid[0, [0, 2]].any()
    assert token_points(full, K_PX, POSE, (1, 3), "pad").valid[0, 1]


def test_no_depth_gives_no_point():
    points = token_points(np.zeros((6, 8), np.float32), K_PX, POSE, (2, 3), "crop")
    assert np.isnan(points.world).all()
    assert np.isnan(points.spread_m).all()
    assert not points.valid.any()
    assert (points.world.dtype, points.spread_m.dtype, points.valid.dtype) == (np.float32, np.float32, bool)


def test_a_cell_of_one_pixel_is_that_pixel():
    depth = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    points = token_points(depth, np.eye(3), np.eye(4), (2, 3), "stretch")
    assert points.world[..., 2].tolist() == depth.tolist()
    assert points.world[1, 2].tolist() == [12, 6, 6]
    assert points.spread_m.tolist() == [[0] * 3] * 2
    assert points.valid.all()


def test_the_patch_size_does_not_enter(pipeline, colour):
    """Encoders of patches 4 and 8 over one store have one set of points."""
    from dataclasses import replace

    from strata.store.feature_store import FeatureStore

    class Coarse(colour):
        def forward(self, batch, layers):
            from torch.nn.functional import avg_pool3d

            small = avg_pool3d(batch.images, (1, 2, 2))
            return super().forward(replace(batch, images=small), layers)

    coarse = Coarse()
    coarse.info = replace(coarse.info, name="coarse", patch_size=8)
    pipeline.add("a", size=(26, 17))
    pipeline.extract()
    before = {path: path.stat().st_ino for path in (pipeline.root / "points").rglob("*") if path.is_file()}
    pipeline.extract(coarse)
    after = {path: path.stat().st_ino for path in (pipeline.root / "points").rglob("*") if path.is_file()}
    assert before == after
    store = FeatureStore.open(pipeline.root)
    one, two = (store.select(name).parts[0] for name in ("colour", "coarse"))
    np.testing.assert_array_equal(one.token_points().world, two.token_points().world)
    assert one.images().shape[1:] != two.images().shape[1:]
