"""How sure a mean over scenes is: two-level bootstrap, paired differences, Holm's correction.

Scenes are what a result is meant to generalise over, and sets of one scene resemble each other. So
means are macro means (of scene means: a scene with many sets weighs no more than one with few), and
a resample draws scenes first, then sets within each drawn scene.

Shapes: S scenes, U units (sets) of all scenes, K resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import ProbeError

MIN_SCENES = 8

Units = Mapping[tuple[str, str], float]
"""Values by (scene, set digest)."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A macro mean and its percentile interval.

    Attributes:
        mean: mean of the scene means.
        low, high: percentiles of the resampled means.
        scenes, units: how many scenes and units it rests on.
    """

    mean: float
    low: float
    high: float
    scenes: int
    units: int

    @property
    def enough_scenes(self) -> bool:
        """Whether marks of significance may be drawn from it; below 8 scenes they mean little."""
        return self.scenes >= MIN_SCENES


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of a - b over units that both have, and the two-sided bootstrap p-value of no difference."""

    interval: Interval
    p_value: float


def bootstrap_mean(
    values_by_scene: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The mean of scene means with its two-level bootstrap interval.

    Args:
        values_by_scene: finite values of the units of each scene; scenes without any are ignored.
        seed: equal seeds and equal numbers of units give equal resamples, so that intervals of
            several encoders on the same sets move together.
        resamples: number of resamples.
        level: coverage of the interval.

    Raises:
        ProbeError: there is no value at all.
    """
    scenes = [np.asarray(values_by_scene[name], float) for name in sorted(values_by_scene)]
    scenes = [values for values in scenes if values.size]
    if not scenes:
        raise ProbeError(
            "there is nothing to average.",
            where="bootstrap_mean",
            why="no scene has a value",
            fix="leave the measure out, or score sets that have correspondences",
        )
    return _interval(scenes, _resampled_means(scenes, seed, resamples), level)


def paired_difference(
    a: Units, b: Units, *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> Difference:
    """a - b on the units that both have: same scene and same set.

    The p-value is twice the smaller share of resampled means on either side of 0, the observed one
    counted in, so it is never below 2 / (resamples + 1).

    Raises:
        ProbeError: they share no unit.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise ProbeError(
            "the two results share no set.",
            where="paired_difference",
            why=f"{len(a):,} and {len(b):,} units, none with the same scene and set digest",
            fix="score both on the same sets: `sets=FILE`",
        )
    grouped = by_scene({unit: a[unit] - b[unit] for unit in shared})
    scenes = [np.asarray(values) for values in grouped.values()]
    means_K = _resampled_means(scenes, seed, resamples)
    smaller = min((means_K <= 0).sum(), (means_K >= 0).sum())
    p_value = min(1.0, 2 * (int(smaller) + 1) / (resamples + 1))
    return Difference(interval=_interval(scenes, means_K, level), p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: reject where the result is below the level."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def significant(differences: Sequence[Difference], level: float = 0.05) -> list[bool]:
    """Which differences get a mark: below `level` after Holm's correction, none without enough scenes."""
    adjusted = holm([difference.p_value for difference in differences])
    return [
        p_value < level and difference.interval.enough_scenes
        for p_value, difference in zip(adjusted, differences, strict=True)
    ]


def by_scene(units: Units) -> dict[str, list[float]]:
    """Values of each scene, scenes and units in sorted order."""
    grouped: dict[str, list[float]] = {}
    for scene, unit in sorted(units):
        grouped.setdefault(scene, []).append(units[scene, unit])
    return grouped


def _interval(scenes: list[np.ndarray], means_K: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(means_K, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        mean=float(np.mean([values.mean() for values in scenes])),
        low=float(low),
        high=float(high),
        scenes=len(scenes),
        units=sum(values.size for values in scenes),
    )


def _resampled_means(scenes: list[np.ndarray], seed: int, resamples: int) -> np.ndarray:
    weights_KU = _weights(tuple(values.size for values in scenes), seed, resamples)
    return weights_KU @ np.concatenate(scenes)


@lru_cache(maxsize=4)
def _weights(sizes: tuple[int, ...], seed: int, resamples: int) -> np.ndarray:
    """[K, U] weight of every unit in every resample; each row sums to 1.

    A scene drawn m times draws its n units m * n times in all, so both levels are multinomial and
    every series on the same sets shares one matrix.
    """
    generator = np.random.default_rng(seed)
    drawn_KS = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    columns = [
        generator.multinomial(drawn_KS[:, s] * n, np.full(n, 1 / n)) / (n * len(sizes))
        for s, n in enumerate(sizes)
    ]
    return np.concatenate(columns, axis=1)
