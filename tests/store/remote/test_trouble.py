"""What goes wrong on the way is told with its fix, and soon."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from strata.cli import app
from strata.errors import ConfigError, RemoteError, StoreError
from strata.store.feature_store import FeatureStore
from strata.store.remote import place
from strata.store.remote.contents import contents_bytes, parse_contents
from strata.store.remote.path import place_of
from strata.store.remote.transfer import same
from typer.testing import CliRunner


@contextmanager
def permissions(s3):
    """The server asks who asks, from now on."""

    def reset(count: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{s3.url}/moto-api/reset-auth", count, plain)).close()

    reset(b"0")
    try:
        yield
    finally:
        reset(b"inf")


@pytest.fixture
def deaf():
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed():
    """A port where nobody listens, nor can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def opened(url, cache, **options):
    return FeatureStore.open(url, storage_options=options, cache=cache)


def test_a_bucket_or_store_that_is_not_there(s3, cache):
    for url in ("s3://no-such-bucket/f.zarr", "s3://bucket/none.zarr"):
        with pytest.raises(StoreError, match="not a store") as caught:
            opened(url, cache, **s3.options)
        assert caught.value.where == url
        assert "no such bucket" in caught.value.why


def test_no_permission(s3, cache):
    with permissions(s3), pytest.raises(RemoteError, match="refuses these credentials") as caught:
        opened("s3://bucket/f.zarr", cache, **s3.options)
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix


def test_no_credentials(s3, cache, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = {name: value for name, value in s3.options.items() if name not in ("key", "secret")}
    with pytest.raises(RemoteError, match="no credentials") as caught:
        opened("s3://bucket/f.zarr", cache, **options)
    assert "FSSPEC_S3_ANON" in caught.value.fix


def test_nobody_listens(s3, closed, cache, monkeypatch):
    monkeypatch.setattr(place, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(sys.modules["s3fs.core"].S3FileSystem, "retries", 1)
    options = {**s3.options, "endpoint_url": f"http://127.0.0.1:{closed}"}
    for url, given in (("s3://bucket/f.zarr", options), (f"http://127.0.0.1:{closed}/f.zarr", {})):
        with pytest.raises(RemoteError, match="cannot be reached") as caught:
            opened(url, cache, **given)
        assert str(closed) in caught.value.why


def test_nobody_answers(s3, deaf, cache, monkeypatch):
    import aiohttp

    monkeypatch.setattr(place, "_PAUSES_S", (0.0,))
    monkeypatch.setattr(sys.modules["s3fs.core"].S3FileSystem, "retries", 1)
    config = {"retries": {"max_attempts": 0}, "connect_timeout": 1, "read_timeout": 0.2}
    options = {**s3.options, "endpoint_url": f"http://127.0.0.1:{deaf}", "config_kwargs": config}
    soon = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=0.2)}}
    for url, given in (("s3://bucket/f.zarr", options), (f"http://127.0.0.1:{deaf}/f.zarr", soon)):
        with pytest.raises(RemoteError, match="cannot be reached"):
            opened(url, cache, **given)


def test_urls_that_nothing_opens(cache, monkeypatch):
    with pytest.raises(ConfigError, match="not understood"):
        opened("nonsense://x/f.zarr", cache)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        opened("gs://bucket/f.zarr", cache)
    assert "strata3d[remote]" in caught.value.fix


def test_a_command_tells_it_without_a_traceback(closed):
    result = CliRunner().invoke(app, ["store", "ls", f"http://127.0.0.1:{closed}/f.zarr"])
    assert result.exit_code == 2
    assert "RemoteError: the place cannot be reached" in result.output


def test_a_file_system_that_connects_when_it_is_made(cache, closed, monkeypatch):
    for error in (socket.gaierror(-2, "Name or service not known"), ConnectionRefusedError(111, "refused")):

        def connect(*_, error=error, **__):
            raise error

        monkeypatch.setattr("ftplib.FTP.connect", connect)
        with pytest.raises(RemoteError, match="cannot be reached") as caught:
            opened(f"ftp://nowhere.invalid:{closed}/f.zarr", cache)
        assert caught.value.where.startswith("ftp://nowhere.invalid")


@pytest.mark.parametrize("verb", ["verify", "gc", "migrate"])
def test_upkeep_is_for_folders(verb):
    result = CliRunner().invoke(app, ["store", verb, "http://127.0.0.1/f.zarr"])
    assert result.exit_code == 2
    assert f"{verb} works on folders: pull it first." in result.output
    assert "strata store pull http://127.0.0.1/f.zarr out=" in result.output


def test_a_web_server_without_byte_ranges_is_refused_at_once(rangeless_web, filled, push_store, cache):
    url, folder = rangeless_web
    push_store(filled, str(folder / "f.zarr"))
    with pytest.raises(StoreError, match="sends whole files") as caught:
        opened(f"{url}/f.zarr", cache)
    assert caught.value.where == f"{url}/f.zarr"
    assert f"strata store pull {url}/f.zarr out=" in caught.value.fix


def test_copying_needs_no_byte_ranges(rangeless_web, filled, push_store, pull_store, tmp_path, tree):
    url, folder = rangeless_web
    push_store(filled, str(folder / "f.zarr"))
    pull_store(f"{url}/f.zarr", tmp_path / "part.zarr")
    assert tree(tmp_path / "part.zarr") == tree(filled)
    assert "0.0 MB of them copied now" in pull_store(f"{url}/f.zarr", tmp_path / "part.zarr")


def test_a_large_file_is_not_compared_by_its_end_where_there_are_no_ranges(rangeless_web, tmp_path, cache):
    url, folder = rangeless_web
    files = {"zarr.json": b"{}", "x": bytes(100_000)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (tmp_path / name).write_bytes(data)
    (folder / "contents.json").write_bytes(
        contents_bytes({name: len(data) for name, data in files.items()}, {"zarr.json": b"{}"})
    )
    there = place_of(url, cache=cache)
    assert same(there, tmp_path, "zarr.json")
    assert not same(there, tmp_path, "x")


def test_a_missing_shard_is_named(in_memory, cache):
    import fsspec

    files = fsspec.filesystem("memory").store
    for path in [path for path in files if "/norm/tokens/c." in path]:
        del files[path]
    block = next(FeatureStore.open(in_memory, cache=cache).select("colour").blocks())
    with pytest.raises(StoreError, match="a shard is missing") as caught:
        block.tokens("norm")
    assert caught.value.where.startswith("memory://shelf/f.zarr/features/")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/../../b", "a\\..\\b", ".", ""], ids=repr)
def test_contents_cannot_lead_out_of_a_store(path):
    with pytest.raises(StoreError, match="contents"):
        parse_contents(contents_bytes({path: 1}, {}), "here")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"files": {"a": -1}},
        {"files": {"a": True}},
        {"files": {"a": "1"}},
        {"files": []},
        {"documents": 3},
        None,
    ],
    ids=str,
)
def test_contents_of_another_kind_are_refused(change):
    good = contents_bytes({"zarr.json": 2}, {"zarr.json": b"{}"})
    listing, documents = parse_contents(good, "here")
    assert listing.files["zarr.json"].size == 2
    assert documents == {"zarr.json": b"{}"}
    bad = good[:-9] if change is None else json.dumps({**json.loads(good), **change}).encode()
    with pytest.raises(StoreError, match="cannot be read"):
        parse_contents(bad, "here")
