"""The cache of blocks: bounded, shared, and never believed without its checksum."""

from __future__ import annotations

import os
import threading

import fsspec
import pytest
from strata.errors import ConfigError, StoreError
from strata.store.feature_store import FeatureStore
from strata.store.remote.blocks import BLOCK, Blocks, Span, block_runs
from strata.store.remote.cache import BlockCache, cache_of, parsed_bytes
from strata.store.remote.listing import RemoteFile


def files_of(cache: BlockCache) -> list:
    return [path for path in cache.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_was_read_once_needs_its_place_no_more(in_memory, cache, everything):
    store = FeatureStore.open(in_memory, cache=cache)
    before = everything(store)
    again = FeatureStore.open(in_memory, cache=cache)
    assert again.keys()
    fsspec.filesystem("memory").store.clear()
    assert everything(again) == before


def test_a_block_that_was_spoilt_is_fetched_again(in_memory, cache, everything):
    store = FeatureStore.open(in_memory, cache=cache)
    before = everything(store)
    for n, path in enumerate(files_of(cache)):
        data = bytearray(path.read_bytes())
        data[n % len(data)] ^= 1
        path.write_bytes(data[: len(data) - n % 3])
    again = FeatureStore.open(in_memory, cache=cache)
    assert everything(again) == before
    fsspec.filesystem("memory").store.clear()
    assert everything(again) == before, "what was fetched again was not kept"


def test_a_damaged_shard_is_asked_for_twice_and_then_named(in_memory, cache):
    store, files = FeatureStore.open(in_memory, cache=cache), fsspec.filesystem("memory").store
    name = next(path for path in sorted(files) if "/norm/tokens/c." in path)
    whole = files[name].getvalue()
    block = next(b for b in store.select("colour").blocks() if b.bundle.folder in name)
    spoilt = bytes([whole[0] ^ 1]) + whole[1:]
    files[name].seek(0)
    files[name].write(spoilt)
    with pytest.raises(StoreError, match="checksum") as caught:
        block.tokens("norm")
    assert "c.0.0.0.0, row 0" in caught.value.where
    files[name].seek(0)
    files[name].write(whole)
    assert block.tokens("norm").shape[0] == 5


def test_a_file_that_was_replaced_is_not_taken_from_the_cache(in_memory, filled, cache, push_store):
    block = next(FeatureStore.open(in_memory, cache=cache).select("colour").blocks())
    before = block.images()
    files = fsspec.filesystem("memory").store
    for path in [path for path in files if "/image/c." in path]:
        del files[path]
    push_store(filled, in_memory)
    again = next(FeatureStore.open(in_memory, cache=cache).select("colour").blocks())
    count = len(files_of(cache))
    assert again.images().tobytes() == before.tobytes()
    assert len(files_of(cache)) > count


def test_the_least_recently_used_go_first(tmp_path):
    cache = BlockCache(tmp_path, 10_000)
    for n in range(8):
        cache.put(f"{n:02d}", bytes([n]) * 1000)
        os.utime(tmp_path / f"{n:02d}" / f"{n:02d}", (n, n))
    assert cache.get("00") == bytes(1000)  # used now, so it is the newest
    cache.put("08", bytes(1000))
    cache.put("09", bytes(1000))
    there = {path.name for path in files_of(cache)}
    assert {"00", "08", "09"} <= there
    assert "01" not in there
    assert cache.get("01") is None
    assert sum(path.stat().st_size for path in files_of(cache)) <= 10_000


def test_many_writers_stay_below_the_limit(tmp_path):
    caches = [BlockCache(tmp_path, 64_000) for _ in range(2)]

    def fill(cache: BlockCache, base: int) -> None:
        for n in range(200):
            cache.put(f"{base + n:04x}", bytes(996))

    threads = [threading.Thread(target=fill, args=(cache, 1000 * n)) for n, cache in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 32_000 < sum(path.stat().st_size for path in files_of(caches[0])) <= 64_000


def test_what_dead_writers_left_goes_too(tmp_path):
    cache = BlockCache(tmp_path, 4_000)
    left = tmp_path / "aa" / ".aab.1-0.partial"
    left.parent.mkdir()
    left.write_bytes(bytes(3000))
    os.utime(left, (1, 1))
    cache.put("bb", bytes(3000))
    assert not left.exists()
    assert cache.get("bb") == bytes(3000)


def test_a_full_disk_keeps_nothing_and_harms_nothing(tmp_path, monkeypatch):
    cache = BlockCache(tmp_path, 10_000)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put("aa", b"x")
    assert cache.get("aa") is None
    assert files_of(cache) == []


def test_spans_are_cut_out_of_as_few_requests_as_they_need(tmp_path):
    data = {name: os.urandom(size) for name, size in {"a": 20 * BLOCK + 7, "b": 5}.items()}
    files = {name: RemoteFile(path=name, size=len(body), version="1") for name, body in data.items()}
    asked = []

    def fetch(spans):
        asked.append([(span.file.path, span.start, span.stop) for span in spans])
        return [data[span.file.path][span.start : span.stop] for span in spans]

    blocks = Blocks("s3://x", fetch, BlockCache(tmp_path, 10**9))
    spans = [
        Span(file=files["a"], start=BLOCK - 3, stop=BLOCK + 5),
        Span(file=files["b"], start=1, stop=5),
        Span(file=files["a"], start=20 * BLOCK, stop=20 * BLOCK + 7),
        Span(file=files["b"], start=2, stop=2),
    ]
    wanted = [data[span.file.path][span.start : span.stop] for span in spans]
    assert blocks.read(spans) == wanted
    assert asked == [[("a", 0, 2 * BLOCK), ("a", 20 * BLOCK, 20 * BLOCK + 7), ("b", 0, 5)]]
    assert blocks.read(spans) == wanted
    assert asked[1:] == [[]]
    whole = Span(file=files["a"], start=0, stop=files["a"].size)
    assert blocks.read([whole]) == [data["a"]]
    assert asked[2] == [("a", 2 * BLOCK, 18 * BLOCK), ("a", 18 * BLOCK, 20 * BLOCK)]
    blocks.forget(files["b"])
    assert blocks.read(spans[1:2]) == wanted[1:2]
    assert asked[3] == [("b", 0, 5)]
    assert [len(run) for run in block_runs([(files["a"], n) for n in range(18)])] == [16, 2]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("200GB", 200 * 10**9), ("1.5 mb", 1_500_000), ("7", 7), ("3kb", 3000), ("2TB", 2 * 10**12)],
)
def test_sizes(text, size):
    assert parsed_bytes(text) == size


def test_the_environment_says_where_and_how_much(tmp_path):
    cache = cache_of({"STRATA_CACHE": str(tmp_path / "c"), "STRATA_CACHE_BYTES": "5MB"})
    assert (cache.folder, cache.limit) == (tmp_path / "c", 5_000_000)
    assert cache_of({"XDG_CACHE_HOME": str(tmp_path)}).folder == tmp_path / "strata"
    assert cache_of({}).limit == 10 * 10**9
    with pytest.raises(ConfigError, match="'much' is not a size"):
        cache_of({"STRATA_CACHE_BYTES": "much"})
