"""Stores elsewhere give the same bytes as local ones, whichever way they are reached."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from strata.cli import app
from strata.errors import RemoteError, SceneError, StoreError
from strata.extract import bundle_pass
from strata.store.feature_store import FeatureStore
from strata.store.group import StoredGroup
from strata.store.remote.cache import BlockCache
from strata.store.remote.path import RemotePath, place_of
from typer.testing import CliRunner

READER = """
import hashlib, sys
from strata.store.feature_store import FeatureStore
from strata.store.remote.cache import BlockCache
url, endpoint, cache = sys.argv[1:]
options = {"endpoint_url": endpoint, "key": "tester", "secret": "tester"}
for _ in range(2):
    store = FeatureStore.open(url, storage_options=options, cache=BlockCache(cache, 4_000))
    sums = [hashlib.sha256(b.tokens("norm").tobytes()).hexdigest() for b in store.select("colour").blocks()]
print(*sums)
"""


@pytest.fixture(scope="session")
def s3_store(filled, s3):
    """The store in the bucket."""
    import s3fs

    system = s3fs.S3FileSystem(**s3.options)
    for path in filled.rglob("*"):
        if path.is_file():
            system.put_file(str(path), f"bucket/f.zarr/{path.relative_to(filled)}")
    return "s3://bucket/f.zarr"


def test_s3_gives_the_bytes_of_local_files(filled, s3, s3_store, cache, everything):
    local = everything(FeatureStore.open(filled))
    for _ in range(2):  # from the place, then from the cache
        store = FeatureStore.open(s3_store, storage_options=s3.options, cache=cache)
        assert everything(store) == local
    assert FeatureStore.open(filled).select("colour").fingerprint == store.select("colour").fingerprint
    assert store.splits() == FeatureStore.open(filled).splits()
    assert store.view_sets() == FeatureStore.open(filled).view_sets()


def test_memory_gives_the_bytes_of_local_files_without_a_cache(filled, in_memory, everything, tmp_path):
    nothing = BlockCache(tmp_path / "cache", 0)
    assert everything(FeatureStore.open(in_memory, cache=nothing)) == everything(FeatureStore.open(filled))
    assert not (tmp_path / "cache").exists()


def test_a_web_server_is_read_through_its_contents(filled, web, push_store, cache, everything):
    url, folder = web
    push_store(filled, str(folder / "f.zarr"))
    store = FeatureStore.open(f"{url}/f.zarr", cache=cache)
    assert everything(store) == everything(FeatureStore.open(filled))
    (folder / "f.zarr" / "contents.json").unlink()
    with pytest.raises(StoreError, match="cannot be listed") as caught:
        FeatureStore.open(f"{url}/f.zarr", cache=cache)
    assert "strata store contents" in caught.value.fix
    with pytest.raises(StoreError, match="not a store"):
        FeatureStore.open(f"{url}/none.zarr", cache=cache)


def test_every_way_to_pick_rows_is_that_of_local_arrays(filled, in_memory, cache):
    """Any order, repeated rows, a caller's buffer that is not contiguous, single tokens."""
    here, there = FeatureStore.open(filled).select("colour"), FeatureStore.open(in_memory, cache=cache)
    for mine, theirs in zip(here.blocks(), there.select("colour").blocks(), strict=True):
        for layer in mine.layers:
            np.testing.assert_array_equal(
                mine.tokens(layer, [4, 0, 0, 2]), theirs.tokens(layer, [4, 0, 0, 2])
            )
        folder = next(path.parent for path in sorted(filled.glob("features/*/*/norm/tokens")))
        spot = str(folder.relative_to(filled))
        arrays = [
            StoredGroup(FeatureStore.open(root, cache=cache).root / spot).array("tokens")
            for root in (filled, in_memory)
        ]
        wide = np.zeros((2, *arrays[0].spec.shape[1:-1], 2 * arrays[0].spec.shape[-1]), np.float16)
        arrays[1].read([3, 1], wide[..., ::2])
        np.testing.assert_array_equal(wide[..., ::2], arrays[0].read([3, 1]))
        rows, at = np.array([4, 0, 4]), np.array([0, 1, 0])
        np.testing.assert_array_equal(arrays[0].gather(rows, (at, at)), arrays[1].gather(rows, (at, at)))
        assert [arrays[1].present(row) for row in range(5)] == [True] * 5


def test_a_view_that_failed_is_missing_elsewhere_too(pipeline, monkeypatch, push_store, cache):
    pipeline.add("a")
    prepare = bundle_pass.prepare

    def broken(scene, view, request):
        if view.name == "001":
            raise SceneError("the image cannot be decoded.", where="here")
        return prepare(scene, view, request)

    monkeypatch.setattr(bundle_pass, "prepare", broken)
    pipeline.extract()
    push_store(pipeline.root, "memory://broken/f.zarr")
    here = FeatureStore.open(pipeline.root).select("colour")
    there = FeatureStore.open("memory://broken/f.zarr", cache=cache).select("colour")
    assert list(here.left_out) == ["toy/a/001"]
    assert there.left_out == here.left_out
    assert there.load()[0].tokens["norm"].tobytes() == here.load()[0].tokens["norm"].tobytes()


def test_threads_and_processes_read_at_once(filled, s3, s3_store, tmp_path):
    """All with one cache that is too small for what they read."""

    def tokens(of: FeatureStore) -> list[str]:
        return [hashlib.sha256(b.tokens("norm").tobytes()).hexdigest() for b in of.select("colour").blocks()]

    local = tokens(FeatureStore.open(filled))
    store = FeatureStore.open(
        s3_store, storage_options=s3.options, cache=BlockCache(tmp_path / "cache", 4_000)
    )
    command = [sys.executable, "-c", READER, s3_store, s3.url, str(tmp_path / "cache")]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        assert all(found == local for found in pool.map(lambda _: tokens(store), range(4)))
    printed = [reader.communicate()[0].split() for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert printed == [local, local]


def test_commands_take_urls(s3_environment, s3_store, filled, tmp_path):
    for words in (["store", "ls", s3_store], ["store", "info", f"store={s3_store}"]):
        there, here = (
            CliRunner().invoke(app, [text.replace(s3_store, str(root)) for text in words])
            for root in (s3_store, filled)
        )
        assert there.exit_code == 0, there.output
        assert [line for line in there.output.splitlines() if "store " not in line[:6]] == [
            line for line in here.output.splitlines() if "store " not in line[:6]
        ]
    out = tmp_path / "runs"
    words = ["probe", "correspondence", f"store={s3_store}", f"out={out}", "pictures=0", "set_views=2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (0, 2), result.output
    assert "unexpected" not in result.output


def test_writing_elsewhere_is_refused_with_the_way_to_do_it(in_memory, cache):
    for path in (in_memory, "s3://bucket/new.zarr"):
        with pytest.raises(StoreError, match="not be extracted into") as caught:
            FeatureStore.create(path)
        assert "store push" in caught.value.fix
    store = FeatureStore.open(in_memory, cache=cache)
    with pytest.raises(StoreError, match="not be extracted into"):
        store.catalog.write(*next((b, store.catalog.views(b)) for b in store.catalog.bundles.values()))


def test_paths_answer_as_those_of_files_do(filled, in_memory, cache):
    there = place_of(in_memory, cache=cache)
    assert isinstance(there, RemotePath)
    for pattern in ("*", "features/*/zarr.json", "catalog/*.json", "*/none", "features/*/*/norm/tokens"):
        local = [path for path in filled.glob(pattern) if path.name != "runs"]
        found = [path for path in there.glob(pattern) if path.name != "contents.json"]
        assert [str(path.relative_to(filled)) for path in sorted(local)] == [
            path.path for path in sorted(found)
        ]
    one = there / "catalog" / "x.views.json"
    assert (one.name, one.stem, one.parent, one.exists()) == (
        "x.views.json",
        "x.views",
        there / "catalog",
        False,
    )
    assert (there.name, there.is_dir(), there.is_file()) == ("f.zarr", True, False)
    with pytest.raises(FileNotFoundError):
        one.read_bytes()


def test_an_error_elsewhere_is_an_error_of_ours(in_memory, cache, monkeypatch):
    store = FeatureStore.open(in_memory, cache=cache)
    system = fsspec.filesystem("memory")

    def broken(*_, **__):
        raise OSError("the line is cut")

    monkeypatch.setattr(type(system), "cat_file", broken)
    with pytest.raises(RemoteError, match="answered with an error") as caught:
        store.catalog  # noqa: B018
    assert "the line is cut" in caught.value.why
