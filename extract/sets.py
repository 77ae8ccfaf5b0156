"""View sets: views of one scene that see enough of each other, drawn by a walk over covisibility.

Shapes: N views of a scene, V views of a set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, did_you_mean
from ..store.key import digest
from ..store.schema import ViewSet
from ..store.view_sets import read_sets, write_sets

__all__ = ["SAMPLERS", "read_sets", "sample_sets", "walk", "write_sets"]

SAMPLERS = ("strata", "mapanything")
STARTS = 4
DIGITS = 4


def sample_sets(
    scene_id: str,
    names: Sequence[str],
    image_digests: Sequence[str],
    covisibility: np.ndarray,
    *,
    views: int,
    count: int,
    threshold: float,
    seed: int,
    sampler: str = "strata",
    scene_idx: int = 0,
) -> tuple[list[ViewSet], int]:
    """At most `count` sets of a scene, and how many were dropped as equal to an earlier one.

    `strata` seeds every walk by (seed, scene id, number of the set), so that another scene changes no
    set of this one. A walk that ends early gives a smaller set; a set of one view is left out.
    `mapanything` draws what map-anything's loader draws, views twice and equal sets included.

    Args:
        scene_id: `<dataset>/<scene>`.
        names, image_digests: N frame names, and sha256 of their images.
        covisibility: [N, N] f32, the share of row's pixels that column sees.
        views, count: views per set, at least 2; sets to draw.
        threshold: symmetric covisibility, as a share of a view's own, above which views are neighbours.
        seed, sampler: of all walks; `strata` or `mapanything`.
        scene_idx: position of the scene in its dataset; `mapanything` seeds by it.

    Raises:
        ConfigError: an option is out of range.
    """
    check_options(views=views, count=count, seed=seed, sampler=sampler)
    seeds = _seeds(seed, scene_id, scene_idx, count, sampler)
    draw = _mapanything_views if sampler == "mapanything" else walk
    drawn = [tuple(draw(covisibility, views, threshold, np.random.default_rng(one))) for one in seeds]
    kept = [members for members in drawn if len(members) > 1]
    # A dict keeps the order in which the sets were drawn.
    chosen = kept if sampler == "mapanything" else list(dict.fromkeys(kept))
    sets = [_view_set(scene_id, names, image_digests, covisibility, members) for members in chosen]
    return sets, len(kept) - len(chosen)


def _seeds(seed: int, scene_id: str, scene_idx: int, count: int, sampler: str) -> list[int]:
    """One for each set."""
    if sampler == "mapanything":
        return [seed + k + scene_idx for k in range(count)]
    return [int(digest([seed, scene_id, k])[:16], 16) for k in range(count)]


def walk(covisibility: np.ndarray, views: int, threshold: float, rng: np.random.Generator) -> list[int]:
    """A random walk over neighbours that steps back where it is stuck; the longest of four starts.

    Args:
        covisibility: [N, N].
        views: where to stop.
        threshold: see `sample_sets`.
        rng: drawn from once per start and once per step.

    Returns:
        Different views in the order of the walk, at most `views`.
    """
    longest: list[int] = []
    tried: set[int] = set()
    for _ in range(STARTS):
        starts = [view for view in range(len(covisibility)) if view not in tried]
        if not starts:
            break
        walked = _walk_from(int(rng.choice(starts)), covisibility, views, threshold, rng)
        longest = max(longest, walked, key=len)
        if len(longest) == views:
            break
        tried.update(walked)
    return longest


def check_options(*, views: int, count: int, seed: int, sampler: str) -> None:
    """Raises ConfigError for options that make no sets."""
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler={sampler} is not known.", where="sampler", fix=did_you_mean(sampler, SAMPLERS)
        )
    for name, value, least in (("set_views", views, 2), ("set_count", count, 1)):
        if value < least:
            raise ConfigError(f"{name}={value} is too small.", where=name, fix=f"at least {least}")
    if sampler == "mapanything" and seed < 1:
        raise ConfigError(
            f"set_seed={seed} has no meaning for sampler=mapanything.",
            where="set_seed",
            why="map-anything takes 0 for no seed, and draws differently every time",
            fix="set_seed=777 is what it uses for tests",
        )


def _walk_from(
    start: int, covisibility: np.ndarray, views: int, threshold: float, rng: np.random.Generator
) -> list[int]:
    walked, stack = [start], [start]
    while stack and len(walked) < views:
        near = [view for view in _neighbours(covisibility, stack[-1], threshold) if view not in walked]
        if not near:
            stack.pop()
            continue
        view = int(rng.choice(near))
        walked.append(view)
        stack.append(view)
    return walked


def _neighbours(covisibility: np.ndarray, view: int, threshold: float) -> list[int]:
    """Ascending."""
    row = (covisibility[view, :] + covisibility[:, view]) / 2
    row = row / (row[view] + 1e-8)
    row[view] = 0
    return np.flatnonzero(row > threshold).tolist()


def _mapanything_views(
    covisibility: np.ndarray, views: int, threshold: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """As map-anything's loader: any order if all views are wanted, and repeats where views are short."""
    total = len(covisibility)
    if total == views:
        return tuple(rng.permutation(total).tolist())
    if total < views:
        return tuple(rng.choice(total, views, replace=True).tolist())
    walked = walk(covisibility, views, threshold, rng)
    if len(walked) < views:
        walked = rng.choice(walked, views, replace=True).tolist()
    return tuple(walked)


def _view_set(
    scene_id: str,
    names: Sequence[str],
    image_digests: Sequence[str],
    covisibility: np.ndarray,
    members: tuple[int, ...],
) -> ViewSet:
    rows = covisibility[np.ix_(members, members)].astype(np.float64).tolist()
    return ViewSet(
        scene=scene_id,
        members=tuple(names[view] for view in members),
        images=tuple(image_digests[view] for view in members),
        covisibility=tuple(tuple(round(share, DIGITS) for share in row) for row in rows),
    )
