"""Packed shards, changed at random: an error of ours, or the very scenes that were packed."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from strata.extract.pack import pack_scenes
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.extract.shards import ShardIndex

SHARD_BYTES = 8_000
NAMES = ("a", "b.c", "d")


class Toys(SceneSource):
    """Three scenes of two views; with depth and a mask, and without anything."""

    def ids(self):
        return [f"toys/{name}" for name in NAMES]

    def scene(self, scene_id):
        rng = np.random.default_rng(list(scene_id.encode()))
        views = tuple(toy(f"{k}", rng, bare=scene_id == "toys/d") for k in range(2))
        shares = None if views[0].depth is None else np.array([[1, 0.5], [0.25, 1]], np.float32)
        return Scene(id=scene_id, views=views, covisibility=shares, scale_type="metric")

    def splits(self):
        return {"test/toys": ("toys/a",)}


def toy(name, rng, bare):
    image = Blob(suffix="png", data=png(rng.integers(0, 256, (6, 8, 3), np.uint8)))
    if bare:
        return View(name=name, image=image, orientation=3)
    return View(
        name=name,
        image=image,
        depth=Blob(suffix="exr", data=write_exr(rng.uniform(1, 5, (6, 8)).astype(np.float32))),
        masks={"m": Blob(suffix="png", data=png(rng.integers(0, 2, (6, 8), np.uint8) * 255))},
        K_px=np.array([[9.0, 0, 3.5], [0, 9.5, 2.5], [0, 0, 1]]),
        world_from_cam=np.eye(4),
    )


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished pack, by file name."""
    folder = tmp_path_factory.mktemp("whole")
    assert pack_scenes(Toys(), folder, shard_bytes=SHARD_BYTES).shards >= 2
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lay(folder, files):
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sum(map(len, files.values()))


def everything(folder):
    """All that extraction reads."""
    index = ShardIndex.open(folder)
    assert isinstance(index.digest, str)
    scenes = {}
    for scene in index:
        views = [view.verified(scene) for view in scene.views]
        arrays = [decode_view(view) for view in views]
        # What was not verified may be wrong, but is read without another error.
        lazy = [decode_view(view.view()) for view in scene.views]
        assert len(lazy) == len(arrays)
        scenes[scene.id] = (scene, scene.covisibility(), views, arrays)
    return scenes


def as_packed(scenes):
    """Every scene that is there is the one that was packed."""
    for scene_id, (packed, shares, views, arrays) in scenes.items():
        truth = Toys().scene(scene_id)
        assert packed.digest == truth.digest
        assert (packed.scale_type, packed.rules) == (truth.scale_type, truth.rules)
        assert [view.name for view in views] == [view.name for view in truth.views]
        np.testing.assert_array_equal(shares, truth.covisibility)
        for view, decoded, original in zip(views, arrays, truth.views, strict=True):
            expected = decode_view(original)
            np.testing.assert_array_equal(decoded.image, expected.image)
            np.testing.assert_array_equal(decoded.depth_m, expected.depth_m)
            np.testing.assert_array_equal(view.K_px, original.K_px)
            np.testing.assert_array_equal(view.world_from_cam, original.world_from_cam)


def test_the_tars_changed_in_bytes(fuzz, whole, tmp_path):
    tars = [name for name in whole if name.endswith(".tar")]
    lay(tmp_path, whole)
    assert as_packed(everything(tmp_path)) is None

    @fuzz
    def _(data):
        name = tars[data.draw(fuzz.index(tars), label="tar")]
        changed = fuzz.bytes(data, whole[name])
        # As long as it was, since the length is looked at first.
        changed = (changed + bytes(len(whole[name])))[: len(whole[name])]
        size = lay(tmp_path, {**whole, name: changed})
        scenes = fuzz.read(lambda: everything(tmp_path), tmp_path, size)
        assert scenes is None or as_packed(scenes) is None


def test_the_index_changed_in_places(fuzz, whole, tmp_path):
    document = json.loads(whole["index.json"])

    @fuzz
    def _(data):
        text = json.dumps(fuzz.document(data, document)).encode()
        size = lay(tmp_path, {**whole, "index.json": text})
        scenes = fuzz.read(lambda: everything(tmp_path), tmp_path, size)
        assert scenes is None or as_packed(scenes) is None


def test_the_index_changed_in_bytes(fuzz, whole, tmp_path):
    @fuzz
    def _(data):
        size = lay(tmp_path, {**whole, "index.json": fuzz.bytes(data, whole["index.json"])})
        scenes = fuzz.read(lambda: everything(tmp_path), tmp_path, size)
        assert scenes is None or as_packed(scenes) is None


def test_packing_over_damaged_records_mends_them(fuzz, whole, tmp_path):
    records = [name for name in whole if name.startswith("shard-") and name.endswith(".json")]

    @fuzz
    def _(data):
        name = records[data.draw(fuzz.index(records), label="record")]
        text = json.dumps(fuzz.document(data, json.loads(whole[name]))).encode()
        size = lay(tmp_path, {**whole, name: text})
        fuzz.read(lambda: pack_scenes(Toys(), tmp_path, shard_bytes=SHARD_BYTES), tmp_path, size)
        assert meaning(tmp_path) == {file: parsed(file, data) for file, data in whole.items()}


def meaning(folder):
    return {path.name: parsed(path.name, path.read_bytes()) for path in folder.iterdir()}


def parsed(name, data):
    """A record that was only laid out differently was not damaged."""
    return json.loads(data) if name.endswith(".json") else data
