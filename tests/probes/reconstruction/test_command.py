"""`strata reconstruct` as a user runs it, with a small model of random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from strata.configs.schema import ReconstructConfig, SynthConfig
from strata.errors import ConfigError, EncoderError, SceneError, SetsError
from strata.extract.encoders.vggt.preprocess import MODES
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synth_command import synth
from strata.probes.reconstruction import command, outputs
from strata.probes.reconstruction.frames import Frames
from strata.probes.reconstruction.fuse import FROM
from strata.probes.reconstruction.jobs import WORDS, Job, evenly, jobs_of
from strata.probes.reconstruction.network import open_network, prediction_of
from strata.store.schema import ViewSet
from strata.store.view_sets import write_sets

FILES = {"cameras.json", "contact_sheet.png", "viewer.html", "points.ply"}

Reconstruct = Callable[..., "tuple[int, str]"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms; the second has images of several sizes, upright ones too."""
    folder = tmp_path_factory.mktemp("scenes")
    synth(SynthConfig(out=str(folder), scenes=2, views=3, width=64, height=48), Console(quiet=True))
    return folder


@pytest.fixture
def reconstruct(tmp_path: Path, console, monkeypatch: pytest.MonkeyPatch) -> Reconstruct:
    """Runs the command; what takes long and has tests of its own is stood in for."""
    monkeypatch.setattr(outputs, "why_no_ply", lambda: "")
    monkeypatch.setattr(outputs, "write_ply", lambda cloud, path: path.write_bytes(b"ply"))
    monkeypatch.setattr(outputs, "contact_sheet", lambda prediction, title: b"png")

    def run(**words) -> tuple[int, str]:
        words = {"out": str(tmp_path / "out"), "model": "random:0", "size": 56, **words}
        before = len(console.file.getvalue())
        code = command.reconstruct(ReconstructConfig(**words), console)
        return code, console.file.getvalue()[before:]

    return run


def room(out: Path, index: int = 0) -> Path:
    return out / "out" / "synthetic" / f"room_{index}"


def test_scenes_are_reconstructed_and_then_there(reconstruct: Reconstruct, scenes: Path, tmp_path: Path):
    code, said = reconstruct(scenes=str(scenes))
    assert code == 0
    assert "random weights: cameras, depth and points mean nothing" in said
    assert "synthetic/room_1: 3 views" in said
    assert "AUC@30" in said
    record = json.loads((room(tmp_path) / "reconstruction.json").read_text())
    assert {name for name in record["files"] if "/" not in name} == FILES
    assert len(record["files"]) == len(FILES) + 2 * 3
    assert record["provenance"]["weights_random"]
    assert len(record["provenance"]["weights_digest"]) == 64
    assert record["config"]["size"] == 56
    assert record["command"].startswith("strata reconstruct out=")
    assert record["scores"]["depth_abs_rel"] > 0
    assert "random weights" in (room(tmp_path) / "viewer.html").read_text()

    times = {path: path.stat().st_mtime_ns for path in room(tmp_path).rglob("*")}
    code, said = reconstruct(scenes=str(scenes))
    assert "0 reconstructed, 2 were there, 0 left out" in said
    assert times == {path: path.stat().st_mtime_ns for path in room(tmp_path).rglob("*")}


def test_another_word_makes_it_again(reconstruct: Reconstruct, scenes: Path, tmp_path: Path):
    one = {"scenes": str(scenes / "synthetic" / "room_0")}
    seen = set()
    for words in ({}, {"conf": 10.0}, {"model": "random:1"}, {"views": 2}, {"fit": "pad"}):
        _, said = reconstruct(**one, **words)
        assert "1 reconstructed, 0 were there" in said
        seen.add(json.loads((room(tmp_path) / "reconstruction.json").read_text())["fingerprint"])
    assert len(seen) == 5


def test_a_folder_and_a_list_of_images(reconstruct: Reconstruct, scenes: Path, tmp_path: Path):
    images = scenes / "synthetic" / "room_1" / "images"
    code, said = reconstruct(images=[str(images)], points="head", conf=0.0)
    assert code == 0
    assert "AUC" not in said
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert (record["views"], record["scores"]) == (3, None)
    cameras = json.loads((tmp_path / "out" / "cameras.json").read_text())
    assert [(view["width"], view["height"]) for view in cameras["views"]][:2] == [(64, 48), (48, 64)]
    two = [str(images / "0002.png"), str(images / "0000.png")]
    reconstruct(images=two)
    cameras = json.loads((tmp_path / "out" / "cameras.json").read_text())
    assert [view["name"] for view in cameras["views"]] == ["0002", "0000"]


def test_sets_are_reconstructed_each(reconstruct: Reconstruct, scenes: Path, tmp_path: Path):
    views = open_scenes(scenes).scene("synthetic/room_0").views
    sets = [
        ViewSet(
            scene="synthetic/room_0",
            members=tuple(views[i].name for i in chosen),
            images=tuple(views[i].image_digest for i in chosen),
        )
        for chosen in ((0, 1, 2), (2, 1))
    ]
    write_sets(tmp_path / "sets.json", sets, sampler={})
    code, said = reconstruct(scenes=str(scenes), sets=str(tmp_path / "sets.json"))
    assert code == 0
    assert "2 reconstructed" in said
    cameras = json.loads((room(tmp_path) / sets[1].digest[:12] / "cameras.json").read_text())
    assert [view["name"] for view in cameras["views"]] == ["0002", "0001"]
    other = str(scenes / "synthetic" / "room_1")
    with pytest.raises(SetsError, match="no set is of these scenes"):
        jobs_of(ReconstructConfig(scenes=other, sets=str(tmp_path / "sets.json"), out="o"))


def test_a_broken_scene_keeps_no_other_from_being_done(
    reconstruct: Reconstruct, scenes: Path, tmp_path: Path
):
    copied = tmp_path / "photos"
    for name in ("a", "b"):
        (copied / name).mkdir(parents=True)
        for image in sorted((scenes / "synthetic" / "room_0" / "images").iterdir())[:2]:
            (copied / name / image.name).write_bytes(image.read_bytes())
    (copied / "a" / "0001.png").write_bytes(b"\x89PNG nothing")
    code, said = reconstruct(scenes=str(copied))
    assert code == 1
    assert "photos/a is left out: the picture cannot be decoded" in said
    assert "1 reconstructed, 0 were there, 1 left out" in said
    assert (tmp_path / "out" / "photos" / "b" / "viewer.html").is_file()
    assert not (tmp_path / "out" / "photos" / "a").exists()


def test_without_open3d_the_points_wait_for_it(
    reconstruct: Reconstruct, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from strata.probes.reconstruction.point_file import why_no_ply

    one = {"scenes": str(scenes / "synthetic" / "room_0")}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "open3d", None)
        without.setattr(outputs, "why_no_ply", why_no_ply)
        _, said = reconstruct(**one)
        assert "points.ply is left out: open3d does not import" in said
        assert "pip install 'strata3d[3d]'" in said
        assert "1 were there" in reconstruct(**one)[1]
    assert not (room(tmp_path) / "points.ply").exists()
    assert "1 reconstructed" in reconstruct(**one)[1]
    assert (room(tmp_path) / "points.ply").exists()


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ({}, ConfigError, "either scenes= or images="),
        ({"scenes": "a", "images": ["b"]}, ConfigError, "either scenes= or images="),
        ({"images": ["nowhere"]}, SceneError, "there is no nowhere"),
        ({"images": ["."], "sets": "s.json"}, ConfigError, "sets= are of scenes"),
        ({"scenes": ".", "views": 0}, ConfigError, "views=0 leaves nothing"),
        ({"scenes": ".", "conf": 100.0}, ConfigError, "no share of the pixels"),
        ({"scenes": ".", "fit": "squeeze"}, ConfigError, "fit=squeeze is not known"),
        ({"scenes": ".", "points": "heads"}, ConfigError, "points=heads is not known"),
        ({"scenes": ".", "compute": "half"}, ConfigError, "compute=half is not known"),
    ],
)
def test_words_that_make_no_sense(words: dict, error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        jobs_of(ReconstructConfig(out="out", **words))


def test_words_that_are_known_mean_something():
    assert (WORDS["fit"], WORDS["points"]) == (MODES, FROM)


def test_a_set_of_other_images_is_refused(scenes: Path):
    source = open_scenes(scenes)
    view_set = ViewSet(scene="synthetic/room_0", members=("0000",), images=("0" * 64,))
    job = Job(source=source, scene="synthetic/room_0", folder=Path("o"), view_set=view_set)
    with pytest.raises(SetsError, match="0000 of synthetic/room_0 is another image"):
        job.views(None)


def test_views_are_chosen_evenly():
    assert evenly(range(10), 4) == (0, 3, 6, 9)
    assert evenly(range(3), 4) == (0, 1, 2)
    assert evenly(range(10), 1) == (0,)


def test_the_model_s_words(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="compute=half is not known"):
        open_network("random:0", device="cpu", compute="half")
    with pytest.raises(EncoderError, match="has no seed"):
        open_network("random", device="cpu", compute="auto")
    first, again, other = (open_network(f"random:{seed}", device="cpu", compute="auto") for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert first.random


def test_cameras_that_are_no_numbers_are_refused():
    frames = Frames(
        names=("a",), images=np.zeros((1, 14, 14, 3), np.uint8), placements=(), source_sizes=((14, 14),)
    )
    outputs_of = {"pose_enc": torch.full((1, 9), torch.nan), "depth": torch.ones(1, 14, 14, 1)}
    with pytest.raises(EncoderError, match="no numbers"):
        prediction_of({**outputs_of, "depth_conf": torch.ones(1, 14, 14)}, frames)
