"""What the network sees of the source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strata.errors import ConfigError
from strata.extract.preprocess import Placement
from strata.extract.scenes.folder import inspect_images
from strata.extract.scenes.synthetic import SyntheticScene, synthetic_scene
from strata.probes.reconstruction.frames import inside, place_views, read_frames
from strata.probes.reconstruction.fuse import fuse
from strata.probes.reconstruction.prediction import Prediction


def test_frames_are_those_of_the_published_preprocessing(shared: Path):
    golden = shared / "golden" / "vggt"
    expected = np.load(golden / "fn_preprocess.npz")
    for name in ("rgb_64x40", "rgba_40x72"):
        views = inspect_images([golden / f"pre_{name}.png"], "a/b").require().views
        for fit in ("crop", "pad"):
            image = read_frames(views, size=518, patch=14, fit=fit).images[0].transpose(2, 0, 1)
            assert abs(image.astype(int) - expected[f"{name}.{fit}"]).max() <= 1
    table = json.loads((golden / "fn_manifest.json").read_text())["fn_preprocess"]["output_shape_table"]
    for size, shapes in table.items():
        if re.fullmatch(r"\d+x\d+", size):
            for fit, shape in shapes.items():
                placed = place_views([tuple(map(int, size.split("x")))], size=518, patch=14, fit=fit)
                assert list(placed[0].target) == shape[2:]


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_pixels_find_their_way_to_the_source(fit: str):
    """A ramp tells where each pixel came from; mixed sizes get borders, tall ones are cut."""
    sizes = [(80, 60), (60, 80), (48, 36)]
    for placement, (width, height) in zip(place_views(sizes, size=56, patch=14, fit=fit), sizes, strict=True):
        assert placement.target == (56, 56)
        ramp = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
        shown = resized(ramp, placement)
        sx, tx, *_ = placement.affine
        u = np.flatnonzero(inside(placement)[28])
        expected = (u - tx) / sx
        middle = (expected > 2) & (expected < width - 3)
        np.testing.assert_allclose(shown[28, u][middle], expected[middle], atol=0.06)


def resized(plane: np.ndarray, placement: Placement) -> np.ndarray:
    whole = np.asarray(Image.fromarray(plane).resize(placement.resized[::-1], Image.Resampling.BILINEAR))
    canvas = np.full((300, 300), np.nan)
    canvas[100 : 100 + whole.shape[0], 100 : 100 + whole.shape[1]] = whole
    top, left = 100 + placement.top, 100 + placement.left
    return canvas[top : top + placement.target[0], left : left + placement.target[1]]


def test_borders_are_white_and_hold_no_points(scene: SyntheticScene):
    views = scene.encoded().views
    tall = synthetic_scene(0, seed=3, views=1, width=30, height=60).encoded().views
    frames = read_frames([views[0], tall[0]], size=56, patch=14, fit="pad")
    assert frames.images.shape == (2, 56, 56, 3)
    assert not frames.inside[0, :7].any()
    assert frames.inside[0, 7:49].all()
    assert (frames.images[~frames.inside] == 255).all()
    ones = np.ones((2, 56, 56), np.float32)
    K_px, poses = np.tile(np.diag([40.0, 40, 1]), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1))
    whole = Prediction(frames=frames, depth=ones, confidence=ones, K_px=K_px, cam_from_world=poses)
    assert len(fuse(whole)) == frames.inside.sum() == (whole.shown_depth > 0).sum()


@pytest.mark.parametrize(
    ("size", "fit", "match"), [(500, "crop", "size=504"), (56, "corp", "did you mean crop")]
)
def test_a_size_or_fit_that_makes_no_sense(size: int, fit: str, match: str):
    with pytest.raises(ConfigError) as error:
        place_views([(80, 60)], size=size, patch=14, fit=fit)
    assert match in str(error.value)
