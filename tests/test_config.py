"""Words become typed values, mistakes become messages, and a config becomes its command again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strata.configs.load import command_line, describe, load, resolved, words_of
from strata.configs.schema import MISSING, CorrespondenceConfig, ExtractConfig, ReportConfig, SynthConfig
from strata.errors import ConfigError

NEEDED = ["shards=shards", "store=feats.zarr", "encoder=dinov2_base"]


def extract(*words: str) -> ExtractConfig:
    return load(ExtractConfig, [*NEEDED, *words])


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("layers=1/4,1/2,last", ["1/4", "1/2", "last"]),
        ("layers=[block5, norm]", ["block5", "norm"]),
        ("layers=last", ["last"]),
        ("grid=[28,37]", [28, 37]),
        ("grid=aspect:37", "aspect:37"),
        ("grid=28:37", "28:37"),
        ("encoder=a,b", "a,b"),
        ("encoder=timm:vit=x", "timm:vit=x"),
        ("encoder=12", "12"),
        ("batch=16", 16),
        ("force=true", True),
        ("set_threshold=1e-3", 0.001),
        ("limit=none", None),
        ("limit=3", 3),
        ("pixels=[392,518]", [392, 518]),
    ],
)
def test_a_word_is_read_by_the_type_of_its_option(word: str, value: object):
    found = getattr(extract(word), word.partition("=")[0])
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("word", "value"), [("voxel=0.3m", "0.3m"), ("voxel=0.1", 0.1), ("voxel=2", 2)])
def test_a_value_of_any_type_is_a_number_only_if_all_of_it_is(word: str, value: object):
    assert load(CorrespondenceConfig, ["store=s.zarr", word]).voxel == value


def test_the_last_word_wins():
    assert extract("batch=2", "batch=3").batch == 3


@pytest.mark.parametrize(
    ("word", "what", "fix"),
    [
        ("btch=3", "there is no option 'btch'", "did you mean batch?"),
        ("store.path=x", "there is no option 'store.path'", "did you mean store"),
        ("batch=many", "batch has a value that does not fit", "the default is batch=8"),
        ("batch=3.5", "batch has a value that does not fit", "the default is batch=8"),
        ("force=perhaps", "force has a value that does not fit", "the default is force=false"),
        ("feats.zarr", "'feats.zarr' is not a word", "write shards=feats.zarr"),
        ("batch", "'batch' is not a word", "write batch=..."),
        ("store=", "store= has no value", "write store=..."),
        ("limit=", "limit= has no value", "write limit=none"),
        ("scene=${nowhere}", "the value of scene cannot be resolved", "write the value itself"),
    ],
)
def test_a_wrong_word_is_explained(word: str, what: str, fix: str):
    with pytest.raises(ConfigError) as caught:
        extract(word)
    error = caught.value
    assert what in error.what
    assert fix in error.fix
    assert error.where
    assert error.why


def test_all_missing_options_are_named_at_once():
    with pytest.raises(ConfigError, match=r"^encoder, store must be given\.") as caught:
        load(ExtractConfig, ["shards=shards"])
    assert caught.value.fix == "add encoder=... store=..."


def test_a_preset_lies_between_defaults_and_words(tmp_path: Path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("batch: 2\ngrid: aspect:24\nlayers: [block5]\n")
    config = load(ExtractConfig, [*NEEDED, "batch=3"], preset)
    assert (config.batch, config.grid, config.layers, config.fit) == (3, "aspect:24", ["block5"], "crop")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("btch: 2", "there is no option 'btch'"),
        ("batch: many", "batch has a value that does not fit"),
        ("layers: last", "layers has a value that does not fit"),
        ("- batch", "cannot be read"),
        ("batch: [", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_preset_is_named(tmp_path: Path, text: str | None, what: str):
    preset = tmp_path / "preset.yaml"
    if text is not None:
        preset.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        load(ExtractConfig, NEEDED, preset)
    assert caught.value.where == str(preset)


def test_describe_lists_every_option_with_its_text():
    rows = {name: rest for name, *rest in describe(ExtractConfig)}
    assert sorted(rows) == sorted(option.name for option in fields(ExtractConfig))
    # What must be given, then the command's own, then what it shares with others.
    assert list(rows)[:4] == ["shards", "store", "encoder", "weights"]
    assert list(rows)[-5:] == ["set_views", "set_count", "set_threshold", "set_seed", "sampler"]
    assert rows["layers"][:2] == ["list of text", "1/4,1/2,3/4,last"]
    assert rows["limit"][:2] == ["whole number or none", "none"]
    assert rows["store"][:2] == ["text", ""]
    assert all(doc for *_, doc in rows.values())


def test_the_command_has_what_differs_and_nothing_else():
    config = extract("grid=[28,37]", "batch=8", "scene=eth3d/*", "layers=last")
    command = command_line("strata extract run", config)
    assert command == (
        "strata extract run shards=shards store=feats.zarr encoder=dinov2_base "
        "layers=last 'grid=[28,37]' 'scene=eth3d/*'"
    )


def test_the_saved_config_is_a_preset(tmp_path: Path):
    import json

    config = extract("grid=[28,37]", "layers=[]", "force=true", "set_threshold=0.1")
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(resolved(config)))
    assert load(ExtractConfig, [], saved) == config


@settings(max_examples=20, deadline=None)
@given(
    layers=st.lists(st.from_regex(r"[a-z0-9/.]+", fullmatch=True), max_size=3),
    grid=st.sampled_from(["aspect:37", [28, 37], None]),
    scene=st.none() | st.from_regex(r"[a-z]+/[a-z*?'\" ]+", fullmatch=True),
    limit=st.none() | st.integers(0, 9),
    threshold=st.floats(0, 1),
    force=st.booleans(),
)
def test_a_config_comes_back_from_its_command(layers, grid, scene, limit, threshold, force):
    config = ExtractConfig(
        shards="a b",
        store="s=1.zarr",
        encoder="x",
        layers=layers,
        grid=grid,
        scene=scene,
        limit=limit,
        set_threshold=threshold,
        force=force,
    )
    assert load(ExtractConfig, shlex.split(command_line("", config))) == config
    assert load(ExtractConfig, words_of(config)) == config


@dataclass(kw_only=True)
class Nested:
    name: str = field(default=MISSING, metadata={"doc": "a name"})
    synth: SynthConfig = field(default_factory=SynthConfig)
    report: ReportConfig = field(default_factory=ReportConfig)


def test_dotted_names_reach_inner_configs():
    config = load(Nested, ["name=x", "synth.out=scenes", "synth.views=3"])
    assert (config.synth.out, config.synth.views, config.report.out) == ("scenes", 3, "report")
    assert command_line("c", config) == "c name=x synth.out=scenes synth.views=3"
    with pytest.raises(ConfigError, match=r"synth\.out must be given"):
        load(Nested, ["name=x"])
