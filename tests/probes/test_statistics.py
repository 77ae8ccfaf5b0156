"""Intervals, paired differences and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from strata.errors import ProbeError
from strata.probes.statistics import (
    Difference,
    bootstrap_mean,
    by_scene,
    holm,
    paired_difference,
    significant,
)


def drawn_scenes(scenes: int, sets: int, between: float, within: float, seed: int) -> dict[str, list[float]]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, between, scenes)
    return {f"s{i}": list(generator.normal(centre, within, sets)) for i, centre in enumerate(centres)}


def test_the_mean_is_that_of_scene_means() -> None:
    interval = bootstrap_mean({"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0]})
    assert interval.mean == 0.5
    assert (interval.scenes, interval.units) == (2, 5)


def test_scenes_without_values_are_ignored_and_none_at_all_is_an_error() -> None:
    assert bootstrap_mean({"a": [1.0], "b": []}).scenes == 1
    with pytest.raises(ProbeError, match="nothing to average"):
        bootstrap_mean({"a": []})


def test_the_order_of_scenes_does_not_matter_and_the_seed_does() -> None:
    values = drawn_scenes(6, 4, 1, 1, seed=0)
    assert bootstrap_mean(values) == bootstrap_mean(dict(reversed(values.items())))
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_intervals_match_a_plain_two_level_bootstrap() -> None:
    values = {"a": [0.0, 1.0], "b": [2.0, 3.0, 7.0], "c": [1.0], "d": [5.0, 5.5]}
    generator, names, means = np.random.default_rng(5), list(values), []
    for _ in range(4_000):
        scenes = generator.choice(names, len(names))
        means.append(np.mean([generator.choice(values[s], len(values[s])).mean() for s in scenes]))
    interval = bootstrap_mean(values, resamples=20_000, level=0.8)
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(means, [0.1, 0.9]), atol=0.1)


def test_sets_of_one_scene_do_not_narrow_the_interval_as_scenes_do() -> None:
    few = bootstrap_mean(drawn_scenes(8, 5, 1, 0.01, seed=1))
    many_sets = bootstrap_mean(drawn_scenes(8, 200, 1, 0.01, seed=1))
    many_scenes = bootstrap_mean(drawn_scenes(200, 5, 1, 0.01, seed=1))
    width = few.high - few.low
    assert many_sets.high - many_sets.low > 0.5 * width
    assert many_scenes.high - many_scenes.low < 0.5 * width


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    found = [bootstrap_mean(drawn_scenes(30, 5, 1, 1, seed=k), resamples=300) for k in range(200)]
    assert 0.89 < np.mean([i.low <= 0 <= i.high for i in found]) < 0.99


def test_a_paired_difference_uses_shared_units_only() -> None:
    a = {("s", "1"): 3.0, ("s", "2"): 5.0, ("t", "1"): 100.0}
    b = {("s", "1"): 1.0, ("s", "2"): 2.0, ("u", "1"): 0.0}
    difference = paired_difference(a, b)
    assert difference.interval.mean == 2.5
    assert difference.interval.units == 2
    with pytest.raises(ProbeError, match="share no set"):
        paired_difference(a, {("u", "1"): 0.0})


def test_pairing_finds_what_two_intervals_hide() -> None:
    a = drawn_scenes(12, 4, 1, 0, seed=3)
    units = {(scene, str(i)): value for scene, values in a.items() for i, value in enumerate(values)}
    better = {unit: value + 0.05 + 0.01 * (int(unit[0][1:]) % 3) for unit, value in units.items()}
    difference = paired_difference(better, units)
    assert bootstrap_mean(by_scene(better)).low < bootstrap_mean(a).high
    assert difference.interval.low > 0
    assert difference.p_value == pytest.approx(2 / 1001)


def test_no_difference_has_p_value_one() -> None:
    units = {("s", "1"): 1.0, ("t", "1"): 2.0}
    assert paired_difference(units, units).p_value == 1.0


def test_holm_matches_a_worked_example_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_marks_need_eight_scenes() -> None:
    def shifted(scenes: int) -> Difference:
        units = {(f"s{i}", "1"): 1.0 + i for i in range(scenes)}
        return paired_difference({unit: value + 0.1 for unit, value in units.items()}, units)

    assert not shifted(7).interval.enough_scenes
    assert significant([shifted(8), shifted(7)]) == [True, False]
