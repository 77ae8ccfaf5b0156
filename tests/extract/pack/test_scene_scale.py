"""The scale of a scene, from the depths of its views."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from strata.extract import pack_check
from strata.extract.pack import pack_scenes
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.scene import Blob, Scene, View
from strata.extract.shards import ShardIndex

from .memory_source import SMALL, png, scene, source, view


def depths_of(view: View) -> np.ndarray:
    depth_m = decode_view(view).depth_m
    assert depth_m is not None
    return depth_m[depth_m > 0]


def test_scale_is_the_median_of_all_valid_depths(tmp_path):
    mask = Image.new("L", (16, 12), 255)
    mask.paste(0, (0, 0, 5, 12))
    file = io.BytesIO()
    mask.save(file, "PNG")
    masked = replace(view(1), masks={"m": Blob(suffix="png", data=file.getvalue())})
    made = Scene(id="made/a", views=(view(0), masked, View(name="bare", image=png(2))))
    pack_scenes(source(made), tmp_path, shard_bytes=SMALL)
    expected = np.median(np.concatenate([depths_of(v) for v in made.views[:2]]).astype(np.float64))
    assert ShardIndex.open(tmp_path).scenes[0].scene_scale_m == expected


def test_scale_without_depth_is_none(tmp_path):
    pack_scenes(
        source(Scene(id="made/a", views=(View(name="0", image=png(0)),))), tmp_path, shard_bytes=SMALL
    )
    assert ShardIndex.open(tmp_path).scenes[0].scene_scale_m is None


def test_scale_of_a_giant_scene_takes_equal_shares_of_its_views(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_check, "SCENE_DEPTHS", 60)
    made = scene("giant", views=3)
    pack_scenes(source(made), tmp_path, shard_bytes=SMALL)
    shares = []
    for v in made.views:
        values = depths_of(v)
        shares.append(values[:: -(-len(values) // 20)])
        assert 10 < len(shares[-1]) <= 20
    scale = ShardIndex.open(tmp_path).scenes[0].scene_scale_m
    assert scale == pytest.approx(np.median(np.concatenate(shares)), rel=1e-6)
