"""One store with everything that a store can hold: what looks after stores knows all of it."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import strata
from rich.console import Console
from strata.configs.schema import ExtractConfig, PackConfig, PullConfig, SetsConfig, SynthConfig
from strata.errors import SelectionError
from strata.extract.pack import pack
from strata.extract.run import extract
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.store.feature_store import FeatureStore
from strata.store.maintain.garbage import find_garbage
from strata.store.maintain.verify import verify
from strata.store.remote.commands import pull, write_contents
from strata.store.remote.contents import NAME as CONTENTS

QUIET = Console(quiet=True)
PLACES = 100


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of views and of sets, overlapping patches, 8 bits, an oracle, and derived features."""
    folder = tmp_path_factory.mktemp("every")
    scenes, sets, shards = (str(folder / name) for name in ("scenes", "sets.json", "shards"))
    synth(SynthConfig(out=scenes, scenes=1, views=4, width=64, height=48), QUIET)
    make(SetsConfig(scenes=scenes, out=sets, set_count=2, set_views=2), QUIET)
    pack(PackConfig(scenes=scenes, out=shards), QUIET)
    common = {
        "shards": shards,
        "store": str(folder / "feats.zarr"),
        "weights": "random:0",
        "grid": "aspect:4",
    }
    for words in (
        {"encoder": "vit_tiny_demo", "layers": ["norm", "block1.keys"]},
        {"encoder": "vit_tiny_demo", "layers": ["norm"], "stride": 7},
        {"encoder": "vit_tiny_demo", "layers": ["block0"], "storage": "u8"},
        {"encoder": "oracle_world"},
        {"encoder": "vggt_tiny_demo", "layers": ["frame0", "norm"], "sets": sets, "orient": "scene"},
    ):
        extract(ExtractConfig(**common, **words))  # type: ignore[arg-type]
    plain = next(key for key in keys(folder / "feats.zarr") if key.key.stride is None and "vit" in key.name)
    strata.materialise(
        strata.pca(strata.open_store(folder / "feats.zarr").select(plain.name, layers=["norm"]), 3)
    )
    return folder / "feats.zarr"


def keys(root: Path):
    return FeatureStore.open(root).keys()


def kind_of(name: str) -> str:
    """What a file is, whichever bundle, scene or layer it belongs to; encoders keep their names."""
    for pattern, word in (
        (r"/[^/]+@[0-9a-f]{16}-[0-9a-f]{8}/", "/BUNDLE-G/"),
        (r"/[^/]+@[0-9a-f]{16}/", "/BUNDLE/"),
        (r"/[0-9a-f]{16}(?=[.])", "/BUNDLE"),
        (r"/crop-aspect4@[0-9a-f]{6}(-p14)?(s7)?", "/PREPROCESS"),
        (r"@[0-9a-f]{12}/", "/"),
        (r"^(sets|splits)/.*", r"\1/NAME.json"),
        (r"(BUNDLE|BUNDLE-G)/(norm|frame0|block1.keys|block0)(@u8)?/", r"\1/LAYER\3/"),
        (r"/c[.][0-9.]+$", "/c"),
    ):
        name = re.sub(pattern, word, name)
    return name


def files(root: Path) -> dict[str, list[Path]]:
    """All that a store is made of, by kind; `runs/` tells what happened, and nobody needs it."""
    by_kind = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.parent.name != "runs":
            by_kind[kind_of(path.relative_to(root).as_posix())].append(path)
    return by_kind


@contextmanager
def changed(path: Path, data: bytes | None) -> Iterator[None]:
    """A file with other bytes, or gone; as it was when the block ends."""
    before = path.read_bytes() if path.exists() else None
    try:
        put(path, data)
        yield
    finally:
        put(path, before)


def put(path: Path, data: bytes | None) -> None:
    path.unlink() if data is None else path.write_bytes(data)


@pytest.fixture
def shown(root: Path) -> Iterator[Path]:
    """With what a web server needs of it."""
    write_contents(str(root), QUIET)
    yield root
    (root / CONTENTS).unlink()


def named(root: Path) -> set[str]:
    """Whatever is wrong with a store, or is not finished."""
    report = verify(root)
    return {*(fault.path for fault in report.faults), *report.unfinished}


def test_every_kind_is_there(root):
    found = keys(root)
    assert len(found) == 5
    assert {key.key.stride for key in found} == {None, 7}
    assert {key.key.context for key in found} == {"view", "set"}
    assert any(key.key.derived for key in found)


def test_verify_finds_nothing(root):
    assert verify(root).faults == []


def test_each_of_a_hundred_places_is_found_and_named(shown):
    rng, by_kind = random.Random(7), files(shown)
    kinds = sorted(by_kind)
    rng.shuffle(kinds)
    assert 60 < len(kinds) <= PLACES
    for kind in [*kinds, *rng.sample(kinds, PLACES - len(kinds))]:
        path = rng.choice(by_kind[kind])
        data, how = path.read_bytes(), rng.choice(["flip", "flip", "flip", "cut", "foreign"])
        if how == "foreign":
            path = path.with_name(f"{path.name}.{rng.choice(['tmp', 'old', 'json'])}")
        elif how == "cut":
            data = data[: rng.randrange(len(data))]
        else:
            at = rng.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        with changed(path, data):
            assert path.relative_to(shown).as_posix() in named(shown), f"{how} {path}"
    assert named(shown) == set()


def test_each_kind_of_file_that_is_lost_is_missed(shown):
    (shown / CONTENTS).unlink()
    assert named(shown) == set(), "it is there on request only, and made of the rest"
    for kind, paths in files(shown).items():
        with changed(paths[0], None):
            name, group = (path.relative_to(shown).as_posix() for path in (paths[0], paths[0].parent))
            # A group without its own document is one that was not finished.
            assert {name, group} & named(shown), kind
    write_contents(str(shown), QUIET)


def test_token_points_that_are_lost_as_a_whole_are_missed(root, tmp_path):
    for folder in (path for path in root.glob("points/*/*@*") if path.is_dir()):
        away = shutil.move(folder, tmp_path / folder.name)
        (fault,) = verify(root).faults
        assert (fault.path, fault.kind) == (folder.relative_to(root).as_posix(), "missing")
        shutil.move(away, folder)


def test_gc_leaves_everything(root):
    assert find_garbage(root, time.time() + 1) == []


def test_a_copy_of_all_is_whole(root, tmp_path):
    assert pull(str(root), PullConfig(out=str(tmp_path / "copy.zarr")), QUIET) == 0
    assert verify(tmp_path / "copy.zarr").faults == []
    for key in keys(root):
        for block, copy in zip(
            strata.open_store(root).select(key.name).parts,
            strata.open_store(tmp_path / "copy.zarr").select(key.name).parts,
            strict=True,
        ):
            assert copy.token_points().valid.tobytes() == block.token_points().valid.tobytes()
            assert copy.images().tobytes() == block.images().tobytes()
            for layer in block.layers:
                assert copy.tokens(layer).tobytes() == block.tokens(layer).tobytes()


def test_no_stride_is_a_choice_too(root):
    plain = strata.open_store(root).select("vit_tiny_demo", layers=["norm"], stride=None)
    strided = strata.open_store(root).select("vit_tiny_demo", layers=["norm"], stride=7)
    assert (plain.key.stride, strided.key.stride) == (None, 7)
    assert plain.parts[0].grid == strided.parts[0].grid
    with pytest.raises(SelectionError, match="other cells"):
        strata.concat(plain, strided)


def test_bytes_are_those_of_the_storage(root):
    selection = strata.open_store(root).select("vit_tiny_demo", layers=["block0", "norm"], stride=None)
    tokens = len(selection) * 3 * 4 * 64
    assert [selection.where(layers=[name]).stored_bytes for name in selection.layers] == [tokens, 2 * tokens]
    assert selection.nbytes == (4 + 2) * tokens
