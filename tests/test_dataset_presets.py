"""Presets of datasets: what they hold, and how a command takes them."""

from pathlib import Path

import pytest
from strata.configs.dataset_presets import dataset_names, load_dataset, load_mix
from strata.configs.load import load
from strata.configs.schema import CorrespondenceConfig, ExtractConfig, PackConfig, SetsConfig
from strata.errors import ConfigError
from strata.extract.scenes.wai_rules import RULES

PATCH = 14
WORDS = ["scenes=x"]


@pytest.mark.parametrize(
    ("name", "pixels", "threshold"),
    [
        ("blendedmvs", [392, 518], 0.25),
        ("eth3d", [336, 518], 0.025),
        ("mpsd", [294, 518], 0.15),
        ("mvs_synth", [294, 518], 0.25),
        ("scannetppv2", [336, 518], 0.25),
        ("unrealstereo4k", [294, 518], 0.25),
    ],
)
def test_sizes_thresholds_and_sets_are_the_published_ones(name, pixels, threshold):
    options = load_dataset(name).options
    assert [PATCH * side for side in options["grid"]] == pixels
    assert options["set_threshold"] == threshold
    assert (options["set_views"], options["set_count"]) == (4, 20)


def test_mixes_are_the_published_ones():
    assert {name: part.sets for name, part in load_mix("dense").items()} == {
        "blendedmvs": 860,
        "eth3d": 260,
        "scannetppv2": 600,
    }
    train = load_mix("train")
    assert {part.split for part in train.values()} == {"train"}
    assert sum(part.sets for part in train.values()) == 250_000
    with pytest.raises(ConfigError, match="no mix 'dens'") as caught:
        load_mix("dens")
    assert "dense" in caught.value.fix


def test_every_dataset_with_rules_has_a_preset():
    assert set(RULES) < set(dataset_names())


def test_a_command_takes_what_it_knows_and_words_win():
    preset = Path("blendedmvs")
    sets = load(SetsConfig, [*WORDS, "set_count=3"], preset)
    assert (sets.set_threshold, sets.set_count, sets.scenes) == (0.25, 3, "x")
    assert load(ExtractConfig, ["shards=s", "store=t", "encoder=e"], preset).grid == [28, 37]
    assert load(CorrespondenceConfig, ["store=t"], preset).reference_voxel == 0.7
    assert load(PackConfig, [*WORDS, "out=o"], preset) == load(PackConfig, [*WORDS, "out=o"])


def test_a_file_of_that_name_comes_first_and_unknown_names_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("eth3d").write_text("set_threshold: 0.5")
    assert load(SetsConfig, WORDS, Path("eth3d")).set_threshold == 0.5
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(SetsConfig, WORDS, Path("eth4d"))
    assert "mvs_synth" in caught.value.fix
