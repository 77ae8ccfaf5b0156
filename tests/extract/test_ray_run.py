"""`backend=ray` gives the bytes of a local run, survives its workers, and refuses nodes that disagree.

One Ray serves all tests. Its workers know an encoder of an installed package, as third parties have
them, that a test can make deadly: `grey`, which kills its process when it sees a black image.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from strata.configs.schema import ExtractConfig
from strata.errors import ClusterError, ConfigError
from strata.extract import ray_crew, ray_jobs, ray_run
from strata.extract.pack import pack_scenes
from strata.extract.ray_session import own_session
from strata.extract.run import Summary, extract
from strata.extract.scenes.scene import Blob
from strata.store.feature_store import FeatureStore

GREY = """
import os
from pathlib import Path
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap

DEATHS = Path(__file__).with_name("deaths")

class Grey(Encoder):
    info = EncoderInfo(name="grey", patch_size=4, depth=0)
    def __init__(self, weights): pass
    def width(self, layer): return 1
    def layers(self): return ("norm",)
    def weights_digest(self): return "1" * 64
    def to(self, device, dtype): return self
    def forward(self, batch, layers):
        if (batch.images.amax((-1, -2, -3)) == 0).any() and DEATHS.exists():
            left = int(DEATHS.read_text())
            if left:
                DEATHS.write_text(str(left - 1))
                os._exit(1)
        rows, cols = batch.grid
        grey = batch.images.mean(2).unflatten(-1, (cols, 4)).unflatten(-3, (rows, 4)).mean((-1, -3))
        return {"norm": FeatureMap(tokens=grey[..., None])}
"""


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Ray whose workers have the package of `grey`; its folder."""
    package = tmp_path_factory.mktemp("site")
    (package / "grey_encoder.py").write_text(GREY)
    info = package / "grey_encoder-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grey-encoder\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[strata.encoders]\ngrey = grey_encoder:Grey\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package)
        path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        patch.setenv("PYTHONPATH", path)
        patch.delenv("RAY_ADDRESS", raising=False)
        with own_session(2):
            yield package


@pytest.fixture
def shards(pipeline, ray: Path) -> Path:
    """Three small scenes, one of them with a black view; two grids."""
    (ray / "deaths").unlink(missing_ok=True)
    pipeline.add("a", views=4)
    pipeline.add("b", views=3, size=(16, 24))
    pipeline.add("c", views=3)
    pipeline.change("c", lambda views: (*views[:2], black(views[2])))
    pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
    return pipeline.folder / "shards"


def black(view):
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16)).save(buffer, "PNG")
    return type(view)(**{**vars(view), "image": Blob(suffix="png", data=buffer.getvalue())})


def run(shards: Path, store: str, console: Console | None = None, **words) -> Summary:
    usual = {"encoder": "grey", "grid": "aspect:6", "unit_views": 2, "batch": 2, "storage": "f16"}
    paths = {"shards": str(shards), "store": str(shards.parent / store)}
    return extract(ExtractConfig(**{**usual, **paths, **words}), console)


def test_two_workers_write_the_bytes_of_one_process(shards: Path, tree):
    words = {
        "encoder": "vit_tiny_demo",
        "weights": "random:0",
        "layers": ["block1", "norm"],
        "storage": "auto",
    }
    local = run(shards, "local.zarr", **words)
    ray = run(shards, "ray.zarr", backend="ray", workers=2, **words)
    assert (ray.computed, ray.failed, ray.bytes) == (local.computed, 0, local.bytes)
    assert ray.computed == 10
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")
    assert not list((shards.parent / "ray.zarr" / "runs").glob("*.nonce"))


def test_a_worker_that_dies_once_is_replaced(shards: Path, ray: Path, tree, console: Console):
    run(shards, "local.zarr")
    (ray / "deaths").write_text("1")
    summary = run(shards, "ray.zarr", console, backend="ray", workers=2)
    assert (summary.computed, summary.failed) == (10, 0)
    assert "died; a new one takes its place" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")


def test_a_unit_that_always_kills_is_given_up_and_resumed(shards: Path, ray: Path, tree, monkeypatch):
    monkeypatch.setattr(ray_jobs, "RETRIES", 1)
    run(shards, "local.zarr")
    (ray / "deaths").write_text("99")
    summary = run(shards, "ray.zarr", backend="ray", workers=1)
    assert int((ray / "deaths").read_text()) == 99 - 2
    root = shards.parent / "ray.zarr"
    rows = [json.loads(line) for line in (root / "runs" / f"{summary.run}.failed.jsonl").open()]
    assert {row["scene"] for row in rows} <= {"toy/a", "toy/c"}
    assert ("toy/c", "002") in {(row["scene"], row["view"]) for row in rows}
    assert all("given up: the worker on" in row["why"] for row in rows)
    assert summary.failed == len(rows) <= 2
    assert summary.computed == 10 - len(rows)
    (stored,) = FeatureStore(root).keys()
    assert len(stored.bundles) == 1
    (ray / "deaths").unlink()
    assert run(shards, "ray.zarr", backend="ray", workers=1).computed == len(rows)
    assert tree(root) == tree(shards.parent / "local.zarr")


def test_stopped_by_the_user_it_leaves_no_worker_and_resumes(shards: Path, tree, monkeypatch):
    run(shards, "local.zarr")
    hired, done = [], ray_run.Commits.done
    begin = ray_crew.Crew._begin
    monkeypatch.setattr(
        ray_crew.Crew, "_begin", lambda crew, slot: (begin(crew, slot), hired.append((crew, slot)))
    )

    def stopping(commits, job, report):
        done(commits, job, report)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ray_run.Commits, "done", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(shards, "ray.zarr", backend="ray", workers=1)
    ((crew, slot),) = hired
    with pytest.raises(crew._ray.exceptions.RayActorError):
        crew._ray.get(slot.actor.counts.remote(), timeout=20)
    summary = run(shards, "ray.zarr", backend="ray", workers=1)
    assert 0 < summary.computed < 10
    assert tree(shards.parent / "ray.zarr") == tree(shards.parent / "local.zarr")


def test_a_node_with_other_code_is_refused(shards: Path, monkeypatch):
    monkeypatch.setattr(ray_crew, "identity", lambda: {"version": "0.1.0", "code": "f" * 64})
    with pytest.raises(ClusterError, match=r"node \S+ runs other code than the driver") as caught:
        run(shards, "ray.zarr", backend="ray", workers=1)
    assert "here strata 0.1.0, code ffffffffffff" in caught.value.why
    assert "strata submit" in caught.value.fix
    assert not list((shards.parent / "ray.zarr").glob("features/*/*/norm"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"backend": "rya"}, "backend=rya is not known"),
        ({"workers": 2}, "this run does not use it"),
        ({"backend": "ray", "workers": 0}, "leaves nobody to work"),
        ({"backend": "ray", "device": "cuda:1"}, "cannot be chosen"),
    ],
)
def test_words_that_do_not_fit(shards: Path, words: dict, what: str):
    with pytest.raises(ConfigError, match=what):
        run(shards, "x.zarr", **words)


def test_an_encoder_of_this_process_cannot_go_to_workers(pipeline, shards: Path):
    with pytest.raises(ConfigError, match="stays in its process"):
        pipeline.extract(backend="ray")
