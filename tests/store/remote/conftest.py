"""A small store that is filled once, and real servers that run as processes beside the tests."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from strata.configs.load import load
from strata.configs.schema import PullConfig, PushConfig
from strata.store.feature_store import FeatureStore
from strata.store.remote.cache import BlockCache
from strata.store.remote.commands import part_of, pull, push_part

# Each prints its port and stays until its input ends, so none outlives the tests.
S3_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
WEB_SERVER = """
import asyncio, sys
from aiohttp import web
async def main():
    app = web.Application()
    app.router.add_static("/", sys.argv[1])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""
RANGELESS_SERVER = """
import functools, http.server, sys, threading
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words): pass
handler = functools.partial(Quiet, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
"""
KEYS = {"key": "tester", "secret": "tester"}


@dataclass
class S3:
    """A running server of S3."""

    url: str

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that reach it, and give up soon."""
        config = {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 30}
        return {**KEYS, "endpoint_url": self.url, "config_kwargs": config, "skip_instance_cache": True}


def _served(code: str, *words: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A server with the empty bucket `bucket`."""
    for package in ("moto", "s3fs", "flask"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'moto[server]' s3fs")
    import s3fs

    for url in _served(S3_SERVER):
        server = S3(url)
        s3fs.S3FileSystem(**server.options).mkdir("bucket")
        yield server


@pytest.fixture
def s3_environment(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """Commands find the server through the variables that users set."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secret"])
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path / "cache"))
    return s3


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server of static files, and its folder."""
    if find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed: pip install aiohttp")
    folder = tmp_path_factory.mktemp("www")
    for url in _served(WEB_SERVER, str(folder)):
        yield url, folder


@pytest.fixture
def rangeless_web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Python's own web server, which knows no byte ranges, and its folder."""
    if find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed: pip install aiohttp")
    folder = tmp_path / "www"
    folder.mkdir()
    yield from ((url, folder) for url in _served(RANGELESS_SERVER, str(folder)))


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, new_pipeline: type) -> Path:
    """A store of three scenes, one of them portrait, with two layers; to be read only."""
    pipeline = new_pipeline(tmp_path_factory.mktemp("filled"))
    for name, size in (("a", (24, 16)), ("b", (24, 16)), ("c", (16, 24))):
        pipeline.add(name, views=5, size=size)
    pipeline.extract(unit_views=3)
    return pipeline.root


@pytest.fixture
def cache(tmp_path: Path) -> BlockCache:
    return BlockCache(tmp_path / "cache", 10**8)


@pytest.fixture
def in_memory(filled: Path) -> Iterator[str]:
    """The store at a `memory://` URL."""
    import fsspec

    fsspec.filesystem("memory").store.clear()
    run_push(filled, "memory://shelf/f.zarr")
    yield "memory://shelf/f.zarr"
    fsspec.filesystem("memory").store.clear()


def run_push(source: Path, to: str, *words: str, code: int = 0) -> str:
    said = io.StringIO()
    part = part_of(load(PushConfig, [f"to={to}", *words]))
    assert push_part(str(source), to, part, Console(file=said, width=200)) == code
    return said.getvalue()


@pytest.fixture
def push_store() -> Callable[..., str]:
    """`strata store push SOURCE to=TO words`, also into the memory of this process; what it printed."""
    return run_push


@pytest.fixture
def pull_store() -> Callable[..., str]:
    """`strata store pull SOURCE out=OUT words`; what it printed."""

    def run(source: str | Path, out: Path, *words: str, code: int = 0) -> str:
        said = io.StringIO()
        config = load(PullConfig, [f"out={out}", *words])
        assert pull(str(source), config, Console(file=said, width=200)) == code
        return said.getvalue()

    return run


@pytest.fixture(scope="session")
def everything() -> Callable[[FeatureStore], dict[str, bytes]]:
    """The bytes of all that a store's first key can be asked for, by name."""

    def read(store: FeatureStore) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for n, block in enumerate(store.select("colour").blocks()):
            points, geometry = block.token_points(), block.geometry()
            arrays = {
                **{f"tokens {layer}": block.tokens(layer) for layer in block.layers},
                **{f"prefix {layer}": block.prefix(layer) for layer in block.layers},
                "images": block.images(),
                "affine": block.token_from_source_px(),
                **vars(points),
                **vars(geometry),
            }
            found |= {f"{n} {block.scene} {name}": array.tobytes() for name, array in arrays.items()}
        return found

    return read
