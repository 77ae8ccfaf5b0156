"""What the six datasets bring: modalities, rules of depth, lists, and the numbers of map-anything."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportArgumentType=false

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.pack import pack_scenes
from strata.extract.preprocess import place, place_image, place_intrinsics, place_plane
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import read_exr
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource
from strata.extract.scenes.wai_modalities import frame_key
from strata.extract.scenes.wai_rules import plain_name, rules_of
from strata.extract.scenes.wai_write import write_wai
from strata.extract.sets import sample_sets
from strata.extract.shards import ShardIndex

ROOM = SyntheticSource(1, views=3, width=24, height=18).scene("synthetic/room_0")
TOYS = {
    "blendedmvs/toy_c": ("depth/{}.exr", "moge/v0/mask/moge2/{}.png"),
    "eth3d/toy_a": ("depth/{}.exr", None),
    "eth3d/toy_b": ("depth/{}.exr", None),
    "scannetppv2/toy_d": ("rendered_depth/{}.exr", None),
}


def scene_of(tmp_path, dataset, edit=lambda meta: None):
    """A synthetic room as a scene of that dataset."""
    folder = tmp_path / dataset / "room"
    write_wai(ROOM, folder)
    meta = json.loads((folder / "scene_meta.json").read_text())
    edit(meta)
    (folder / "scene_meta.json").write_text(json.dumps(meta))
    return WaiSource(folder).scene(f"{dataset}/room")


@pytest.mark.parametrize(
    ("modality", "key"),
    [
        ("image", "image"),
        ("depth", None),
        ("rendered_depth", "rd"),
        ("depth|rendered_depth", "rd"),
        ("pred_mask/moge2", "moge2_mask"),
        ("pred_mask/other", None),
        ("pred_mask", "last_mask"),
        (".*depth", "moge2_depth"),
        ("pred_(mask|normals)", "last_mask"),
        ("nothing.*", None),
    ],
)
def test_modalities_are_names_nested_names_and_regular_expressions(modality, key):
    modalities = {
        "image": {"format": "image", "frame_key": "image"},
        "pred_depth": {"moge2": {"frame_key": "moge2_depth", "format": "depth"}},
        "pred_mask": {
            "moge2": {"frame_key": "moge2_mask", "format": "binary"},
            "last": {"format": "binary", "any_name": "last_mask"},
        },
        "rendered_depth": {"frame_key": "rd", "format": "depth"},
    }
    assert frame_key(modalities, modality) == key


def test_a_broken_expression_is_told():
    with pytest.raises(SceneError, match="is not a modality"):
        frame_key({"depth": {}}, "depth(")


def test_folders_follow_the_rules_of_their_dataset():
    assert plain_name("scannetppv2_subset_wai") == "scannetppv2"
    assert rules_of("mvs_synth_wai") == rules_of("mvs_synth")
    assert rules_of("mvs_synth").far_percentile == 95
    assert rules_of("my_own_wai") == rules_of("eth3d")
    treatments: dict = {}
    for dataset in ("eth3d", "mvs_synth", "unrealstereo4k", "blendedmvs"):
        rules = rules_of(dataset)
        assert treatments.setdefault(rules.version, rules.far_percentile) == rules.far_percentile


@pytest.mark.parametrize("dataset", ["mvs_synth_wai", "unrealstereo4k"])
def test_the_farthest_depth_is_dropped_before_and_after_packing(tmp_path, dataset):
    scene = scene_of(tmp_path, dataset)
    pack_scenes(WaiSource(tmp_path), tmp_path / "shards", shard_bytes=1 << 30)
    packed = ShardIndex.open(tmp_path / "shards").scene(scene.id)
    for view, other in zip(scene.views, packed.views, strict=True):
        raw = read_exr(view.depth.read())
        expected = np.where(raw <= np.percentile(raw, 95), raw, 0)
        assert 0 < (expected == 0).sum() <= 0.06 * raw.size
        np.testing.assert_array_equal(decode_view(view).depth_m, expected)
        np.testing.assert_array_equal(decode_view(other.view()).depth_m, expected)
        # The bytes are those of the file, and the digest knows the rules.
        assert other.view().depth.sha256 == view.depth.sha256
        assert other.geometry_digest == view.geometry_digest("metric", 2)
        assert other.geometry_digest != view.geometry_digest("metric", 1)
    assert scene_of(tmp_path / "else", "eth3d").views[0].far_percentile is None


def test_the_depth_a_dataset_prefers(tmp_path):
    def edit(meta):
        meta["frame_modalities"]["rendered_depth"] = {"format": "depth", "frame_key": "mesh"}
        meta["frames"][0]["mesh"] = "depth/0001.exr"

    stems = [
        [view.depth.path.stem for view in scene_of(tmp_path, dataset, edit).views]
        for dataset in ("scannetppv2_wai", "eth3d")
    ]
    assert stems == [["0001", "0001", "0002"], ["0000", "0001", "0002"]]


def test_video_names_portrait_flags_and_any_version(tmp_path):
    def edit(meta):
        meta["version"], meta["scene_name"] = 0.1, "room"
        for frame, name in zip(meta["frames"], (0.1, 12.5, 3), strict=True):
            frame.update(frame_name=name, is_portrait="False", is_bad=False)

    assert [view.name for view in scene_of(tmp_path, "eth3d", edit).views] == ["0.1", "12.5", "3"]


def test_frames_inside_a_video_file_are_told(tmp_path):
    def edit(meta):
        meta["frame_modalities"]["image"]["format"] = "video_frame"

    with pytest.raises(SceneError, match="frames of a video"):
        scene_of(tmp_path, "eth3d", edit)


def test_a_name_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(SceneError, match="is not a frame name"):
        scene_of(tmp_path, "eth3d", lambda meta: meta["frames"][0].update(frame_name=float("nan")))


def test_linked_jpegs_called_png_and_four_channels(tmp_path):
    scene = scene_of(tmp_path, "eth3d")
    first, second, third = (view.image.path for view in scene.views)
    raw = tmp_path / "raw.JPG"
    Image.open(first).save(raw, "JPEG", quality=100)
    first.unlink()
    first.symlink_to(raw)
    colours = np.asarray(Image.open(second))
    Image.fromarray(np.dstack((colours, np.zeros(colours.shape[:2], np.uint8)))).save(second)
    Image.open(third).convert("L").save(third)
    pack_scenes(WaiSource(tmp_path), tmp_path / "shards", shard_bytes=1 << 30)
    views = [packed.view() for packed in ShardIndex.open(tmp_path / "shards").scene(scene.id).views]
    images = [decode_view(view).image for view in views]
    assert [image.shape for image in images] == [(18, 24, 3)] * 3
    np.testing.assert_array_equal(images[1], colours)
    assert views[0].image.read() == raw.read_bytes()


@pytest.mark.parametrize("suffix", [".txt", ".json", ".npy"])
def test_lists_of_a_dataset_serve_its_folders(tmp_path, suffix):
    for folder in ("scannetppv2_subset_wai", "eth3d_wai"):
        write_wai(ROOM, tmp_path / folder / "room")
    for stem, names in {
        "metadata/val/scannetppv2": ["room", "elsewhere"],
        "metadata/custom_splits/val/scannetppv2": ["room"],
        "metadata/val/eth3d": ["room"],
    }.items():
        path = tmp_path / f"{stem}_scene_list_val{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(path, np.array(names, dtype=object), allow_pickle=True)
        else:
            path.write_text(json.dumps(names) if suffix == ".json" else "\n".join(names))
    assert WaiSource(tmp_path).splits() == {
        "val/eth3d_wai": ("eth3d_wai/room",),
        "val/scannetppv2_subset_wai": ("scannetppv2_subset_wai/room",),
    }
    shutil.rmtree(tmp_path / "metadata" / "custom_splits")
    assert len(WaiSource(tmp_path).splits()["val/scannetppv2_subset_wai"]) == 2
    assert open_scenes(tmp_path, split="val").ids() == ["eth3d_wai/room", "scannetppv2_subset_wai/room"]


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "wai" / "golden.json").read_text())


@pytest.fixture(scope="module")
def toys(shared):
    return WaiSource(shared / "golden" / "wai")


def test_the_walk_is_that_of_map_anything(toys, golden):
    for scene_idx, scene_id in enumerate(("eth3d/toy_a", "eth3d/toy_b")):
        scene = toys.scene(scene_id)
        sets, _ = sample_sets(
            scene_id,
            [str(number) for number in range(6)],
            [view.image_digest for view in scene.views],
            scene.covisibility,
            views=4,
            count=3,
            threshold=0.25,
            seed=777,
            sampler="mapanything",
            scene_idx=scene_idx,
        )
        for repetition, drawn in enumerate(sets):
            assert list(drawn.members) == golden["views_seed777"][f"idx{scene_idx}_off{repetition}"]


@pytest.mark.parametrize("scene_id", TOYS)
def test_cameras_images_and_depth_are_those_of_map_anything(toys, golden, scene_id):
    """The sums were recorded for frame 4 of ETH3D's toy_a; all toys show the same room."""
    view = toys.scene(scene_id).views[4]
    decoded = decode_view(view)
    placement = place(decoded.width, decoded.height, (56, 84), "crop")
    # map-anything divides 73.5000014 away by float32.
    np.testing.assert_allclose(place_intrinsics(view.K_px, placement), golden["K_84x56"], atol=2e-6)
    image = place_image(decoded.image, placement).astype(np.float32) / 255
    assert image.sum(dtype=np.float64) == pytest.approx(golden["img_sum"], abs=2e-3)
    depth_m, valid = (place_plane(plane, placement) for plane in (decoded.depth_m, decoded.valid))
    if scene_id.startswith("blendedmvs"):
        (mask,) = view.masks.values()
        on = place_plane(np.asarray(Image.open(mask.path)) > 0, placement)
        whole = toys.scene("eth3d/toy_a").views[4]
        np.testing.assert_array_equal(
            depth_m, np.where(on, place_plane(decode_view(whole).depth_m, placement), 0)
        )
        np.testing.assert_array_equal(valid, on)
        assert not on.all()
    else:
        assert depth_m.sum(dtype=np.float64) == pytest.approx(golden["depth_sum"], rel=1e-6)
        assert valid.all()


@pytest.mark.parametrize("scene_id", TOYS)
def test_every_toy_is_read_from_its_own_files(toys, shared, scene_id):
    depth, mask = TOYS[scene_id]
    folder = shared / "golden" / "wai" / scene_id
    for view in toys.scene(scene_id).views:
        assert view.depth.path == folder / depth.format(view.name)
        assert [blob.path for blob in view.masks.values()] == (
            [folder / mask.format(view.name)] if mask else []
        )
        raw = read_exr(view.depth.read())
        on = np.asarray(Image.open(folder / mask.format(view.name))) > 0 if mask else np.ones_like(raw, bool)
        np.testing.assert_array_equal(decode_view(view).valid, on & (raw > 0))
