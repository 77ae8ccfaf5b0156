"""Wrong words of commands that compute are refused before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from strata.configs.schema import ExtractConfig, PackConfig, SynthConfig

PROGRAM = """
import contextlib, io, json, sys
from strata.cli import app

for line in sys.stdin:
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            app(json.loads(line), prog_name="strata")
        except SystemExit as left:
            code = left.code
    print(json.dumps([code, said.getvalue(), "torch" in sys.modules]), flush=True)
"""
TRAIN = ["train", "vggt", "--preset", "vggt_tiny", "out=run"]
PROBE = ["probe", "correspondence", "out=run"]
RECONSTRUCT = ["reconstruct", "out=run"]
WRONG = {
    "there is no option 'lrr'": [*TRAIN, "scenes=rooms", "lrr=1"],
    "scenes= must be given": TRAIN,
    "augment=much is not known": [*TRAIN, "scenes=rooms", "augment=much"],
    "source=disk is not known": [*TRAIN, "source=disk"],
    "metrics=best is not known": [*TRAIN, "scenes=rooms", "metrics=best"],
    "surface=slop is not known": [*TRAIN, "scenes=rooms", "depth_surface=slop"],
    "precision=float8 cannot be meant": [*TRAIN, "scenes=rooms", "precision=float8"],
    "lr=-1.0 cannot be meant": [*TRAIN, "scenes=rooms", "lr=-1"],
    "pixels=big is no size": [*TRAIN, "scenes=rooms", "pixels=big"],
    "views=[2] is no range": [*TRAIN, "scenes=rooms", "views=2"],
    "there is no model 'vggt_tny'": [*TRAIN, "scenes=rooms", "model=vggt_tny"],
    "the model's sizes cannot be read": [*TRAIN, "scenes=rooms", "model=broken.yaml"],
    "there are no scenes at nowhere": [*TRAIN, "scenes=nowhere"],
    "there is no split 'trian'": [*TRAIN, "scenes=rooms", "split=trian"],
    "the store has no features of 'oracle_wrld'": [
        *TRAIN,
        "source=store",
        "store=f.zarr",
        "encoder=oracle_wrld",
    ],
    "this is not a store": [*PROBE, "store=nowhere.zarr"],
    "protocol=voxl is not known": [*PROBE, "store=f.zarr", "protocol=voxl"],
    "voxel=5cm is not the edge of a cell": [*PROBE, "store=f.zarr", "voxel=5cm"],
    "the store has no features of 'oracle_rgb'": [*PROBE, "store=f.zarr", "encoder=oracle_rgb"],
    "'nrom'": [*PROBE, "store=f.zarr", "layers=nrom"],
    "the sets cannot be read": [*PROBE, "store=f.zarr", "sets=none.json"],
    "either scenes= or images=": RECONSTRUCT,
    "there are no scenes at gone": [*RECONSTRUCT, "scenes=gone"],
    "fit=squeeze is not known": [*RECONSTRUCT, "scenes=rooms", "fit=squeeze"],
    "compute=half is not known": [*RECONSTRUCT, "scenes=rooms", "compute=half"],
    "no view fits 'nowhere/*'": [*PROBE, "store=f.zarr", "scene=nowhere/*"],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, bool]]:
    """By what should be said, (exit code, what was said, whether torch was imported by then): one process."""
    from strata.extract.pack import pack
    from strata.extract.run import run
    from strata.extract.scenes.synth_command import synth

    root, quiet = tmp_path_factory.mktemp("words"), Console(quiet=True)
    scenes, shards, store = (str(root / name) for name in ("rooms", "shards", "f.zarr"))
    synth(SynthConfig(out=scenes, scenes=3, views=3, width=28, height=28), quiet)
    pack(PackConfig(scenes=scenes, out=shards), quiet)
    run(ExtractConfig(shards=shards, store=store, encoder="oracle_world", grid="aspect:4"), quiet)
    (root / "broken.yaml").write_text("depth: [1")
    lines = "".join(json.dumps(words) + "\n" for words in WRONG.values())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=lines, cwd=root, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    assert not Path(root / "run").exists()
    return dict(zip(WRONG, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("said", WRONG)
def test_wrong_words_are_refused_early(answers: dict[str, tuple[int, str, bool]], said: str):
    code, message, heavy = answers[said]
    assert code == 2
    assert said in message
    assert "  fix     " in message
    assert not heavy
