"""Feature keys: what is hashed, how folders are named, which grid an image gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from strata.errors import ConfigError
from strata.store.key import FeatureKey, Preprocess, aspect_grid, canonical_json, digest, identity, readable

KEY = FeatureKey(encoder="dinov2_base", weights="ab" * 32)


def test_canonical_json_is_one_text_of_a_value():
    assert canonical_json({"b": [1, 2.5], "a": "é/ñ"}) == '{"a":"é/ñ","b":[1,2.5]}'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    assert digest({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_folder_names_keep_words_for_people_and_the_identity_behind_the_last_at():
    assert readable("timm:vit/b@16 x", "0f") == "timm-vit-b-16-x@0f"
    assert identity(readable("a" * 80 + "@b", "0f")) == "0f"
    assert len(readable("a" * 80, "0f")) == 64 + 3


def test_a_key_has_the_id_it_always_had():
    """A change of the hash would orphan every store."""
    fields = {
        "encoder": "dinov2_base",
        "weights": "ab" * 32,
        "preprocess": {"fit": "crop", "grid": "aspect:37", "orient": "view", "filter": "auto"},
        "stride": None,
        "compute": "float32",
        "context": "view",
        "derived": None,
        "numerics": 1,
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert KEY.id == hashlib.sha256(text.encode()).hexdigest()[:12] == "29e6faea8e43"
    assert KEY.folder == f"dinov2_base@{KEY.id}"
    assert KEY.preprocess.folder == "crop-aspect37@7d3265"


@pytest.mark.parametrize(
    "other",
    [
        {"encoder": "x"},
        {"weights": "cd" * 32},
        {"stride": 7},
        {"compute": "bfloat16"},
        {"context": "set"},
        {"derived": "pca"},
        {"numerics": 2},
        {"preprocess": Preprocess(fit="pad")},
        {"preprocess": Preprocess(grid=(28, 37))},
        {"preprocess": Preprocess(orient="scene")},
        {"preprocess": Preprocess(filter="bicubic")},
        {"preprocess": Preprocess(grid=None, pixels=(392, 518))},
    ],
    ids=str,
)
def test_every_field_changes_the_id(other):
    changed = replace(KEY, **other)
    assert changed.id != KEY.id
    assert len(changed.differences(KEY)) >= 1
    assert FeatureKey.from_dict(json.loads(canonical_json(changed.to_dict()))) == changed


def test_differences_name_the_fields_and_both_values():
    other = replace(KEY, compute="bfloat16", preprocess=Preprocess(grid=None, pixels=(392, 518)))
    assert KEY.differences(KEY) == []
    assert KEY.differences(other) == [
        "compute: stored float32, asked bfloat16",
        "preprocess.grid: stored aspect:37, asked None",
        "preprocess.pixels: stored None, asked [392, 518]",
    ]


def test_folders_of_preprocessings():
    assert Preprocess(fit="pad", grid=(28, 37)).folder.startswith("pad-28x37@")
    assert Preprocess(grid=None, pixels=(392, 518)).folder.startswith("crop-392x518px@")
    assert Preprocess.from_dict({"grid": [28, 37]}) == Preprocess(grid=(28, 37))


@pytest.mark.parametrize(
    ("long_side", "width", "height", "grid"),
    [
        (37, 640, 480, (28, 37)),
        (37, 480, 640, (37, 28)),
        (4, 8, 5, (3, 4)),  # 2.5 is rounded up
        (2, 8, 5, (1, 2)),  # 1.25 down
        (3, 2, 1, (2, 3)),  # 1.5 up
        (37, 5000, 10, (1, 37)),
        (37, 100, 100, (37, 37)),
    ],
)
def test_aspect_grid_rounds_half_up(long_side, width, height, grid):
    assert aspect_grid(long_side, width, height) == grid
    assert Preprocess(grid=f"aspect:{long_side}").resolve_grid(width, height, 14) == grid


def test_a_fixed_grid_is_turned_for_portrait_views_alone():
    view, scene = Preprocess(grid=(28, 37)), Preprocess(grid=(28, 37), orient="scene")
    assert view.resolve_grid(640, 480, 14) == (28, 37)
    assert view.resolve_grid(480, 640, 14) == (37, 28)
    assert view.resolve_grid(500, 500, 14) == (28, 37)
    assert scene.resolve_grid(480, 640, 14) == (28, 37)
    upright = Preprocess(grid=(37, 28))
    assert upright.resolve_grid(480, 640, 14) == (37, 28)
    assert upright.resolve_grid(640, 480, 14) == (28, 37)


def test_pixels_depend_on_the_patch_and_name_the_nearest_sizes():
    pixels = Preprocess(grid=None, pixels=(392, 518))
    assert pixels.resolve_grid(640, 480, 14) == (28, 37)
    assert pixels.resolve_grid(480, 640, 14) == (37, 28)
    with pytest.raises(ConfigError) as caught:
        pixels.resolve_grid(640, 480, 16)
    assert caught.value.where == "pixels"
    assert "[384,512] and [400,528]" in caught.value.fix


@pytest.mark.parametrize(
    ("words", "where", "fix"),
    [
        ({"fit": "corp"}, "fit", "did you mean crop?"),
        ({"orient": "portrait"}, "orient", "scene"),
        ({"filter": "lancoz"}, "filter", "did you mean lanczos?"),
        ({"grid": "37"}, "grid", "aspect:37"),
        ({"grid": "aspect:0"}, "grid", "aspect:37"),
        ({"grid": [28]}, "grid", "[28,37]"),
        ({"grid": [28, -1]}, "grid", "[28,37]"),
        ({"grid": [True, 2]}, "grid", "[28,37]"),
        ({"grid": None, "pixels": "518"}, "pixels", "[392,518]"),
        ({"grid": None, "pixels": [0, 518]}, "pixels", "[392,518]"),
        ({"grid": None}, "preprocess", "grid="),
        ({"pixels": [392, 518]}, "preprocess", "pixels="),
    ],
    ids=str,
)
def test_bad_words_say_where_and_how_to_mend(words, where, fix):
    with pytest.raises(ConfigError) as caught:
        Preprocess(**words)
    assert caught.value.where == where
    assert fix in caught.value.fix
    assert str(list(words.values())[-1]) in caught.value.what


def test_a_key_refuses_unknown_words():
    with pytest.raises(ConfigError, match="compute=bf16"):
        replace(KEY, compute="bf16")
    with pytest.raises(ConfigError, match="context=sets"):
        replace(KEY, context="sets")
