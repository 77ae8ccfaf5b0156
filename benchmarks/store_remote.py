"""A store elsewhere against plain range requests for the same bytes.

    python benchmarks/store_remote.py [--check] [--pairs 7]

A store of 32 views, four layers of [37, 37, 384] f16 (`store_case.py`), at an S3 server (moto) and at a web
server (aiohttp), both processes of this machine. Ours asks for the index of the shard, verifies every
checksum and keeps what it reads in its cache on the disk, or nothing (STRATA_CACHE_BYTES=0). The peers are
told the ranges of the chunks, ask for them, and make nothing of them: fsspec all at once, boto3 or aiohttp
eight at a time.

A ratio is the peer's seconds over ours. Wall seconds judge, since both wait for the servers, which take most
of them; CPU seconds are those of this process alone. Between two processes of one machine bytes come as
quickly as from a disk, so what is kept costs as much as what is fetched: that row is judged of S3 alone.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from aiohttp import ClientSession
from botocore.config import Config
from judge import Row, Seconds, alternate, median_interval, run_alone, seconds
from rich.console import Console
from store_case import LAYERS, VIEWS, Case
from strata.configs.schema import PushConfig
from strata.store.block import Block
from strata.store.feature_store import FeatureStore
from strata.store.remote.cache import BlockCache
from strata.store.remote.commands import push
from strata.store.remote.path import RemotePath
from strata.store.shard_io import read_index

WIDTH, RANDOM, AT_ONCE = 384, 16, 8
KEYS = {"key": "tester", "secret": "tester"}
# Each prints its port and stays until its input ends.
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
Span = tuple[str, int, int]
"""Path in the store, and the bytes start:stop."""
Timed = list[tuple[Seconds, Seconds]]


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """The store at one place.

    Attributes:
        name, url, options: of the place.
        case: the same store here.
        plain: gets spans with the plain client of the place.
    """

    name: str
    url: str
    options: dict[str, Any]
    case: Case
    plain: Callable[[Sequence[Span]], object]
    caches: Iterator[Path] = field(repr=False)

    def block(self, cache: BlockCache) -> Block:
        """The bundle in a store that was opened just now."""
        store = FeatureStore.open(self.url, storage_options=self.options, cache=cache)
        return store.select("random").parts[0]

    def new_cache(self) -> BlockCache:
        return BlockCache(next(self.caches), 10**9)

    def fsspec(self, spans: Sequence[Span]) -> None:
        system, root = self.system
        paths, starts, stops = zip(*spans, strict=True)
        system.cat_ranges([f"{root}/{path}" for path in paths], starts, stops, on_error="raise")

    def counted(self, cache: BlockCache, views: list[int]) -> str:
        """Requests of one reading in a store that was opened just now, and the bytes that came."""
        block, asked = self.block(cache), Counter[str]()
        assert isinstance(block.store.root, RemotePath)
        (system, _), blocks = block.store.root.place.filesystem, block.store.root.place._blocks
        fetch, info = blocks._fetch, system.info

        def fetched(spans: Sequence[Any]) -> Sequence[bytes]:
            asked.update(requests=len(spans), bytes=sum(span.stop - span.start for span in spans))
            return fetch(spans)

        def looked_up(path: str, **words: Any) -> dict[str, Any]:
            asked.update(requests=1)
            return info(path, **words)

        blocks._fetch, system.info = fetched, looked_up
        block.tokens(LAYERS[1], views)
        blocks._fetch, system.info = fetch, info
        return f"{asked['requests']} requests, {asked['bytes'] / 1e6:.1f} MB"

    @cached_property
    def system(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        return url_to_fs(self.url, **self.options)


def measure(pairs: int) -> list[Row]:
    """A row for each place, amount and state of the cache."""
    rows = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        case = Case(folder=folder, width=WIDTH).prepare()
        caches = (folder / f"cache{n}" for n in range(10**6))
        for place in (_s3(case, caches, servers), _web(case, caches, servers)):
            for amount, views in _amounts().items():
                rows += _rows(place, amount, views, pairs)
    return rows


def _amounts() -> dict[str, list[int]]:
    draw = np.random.default_rng(3)
    return {"random maps": draw.permutation(VIEWS)[:RANDOM].tolist(), "a whole layer": list(range(VIEWS))}


def _rows(place: Elsewhere, amount: str, views: list[int], pairs: int) -> Iterator[Row]:
    spans, name = _spans(place.case, LAYERS[1], views), f"{place.name}: {amount}"
    expected = place.case.values[LAYERS[1]][views]
    out, filled, none = expected.copy(), place.new_cache(), BlockCache("", 0)

    def read(cache: BlockCache) -> Seconds:
        return _reading(place.block(cache), views, expected, out)

    def first() -> Seconds:
        cache = place.new_cache()
        spent = read(cache)
        shutil.rmtree(cache.folder)
        return spent

    def over(ours: Callable[[], Seconds], get: Callable[[Sequence[Span]], object]) -> Timed:
        return alternate(ours, lambda: seconds(lambda: get(spans)), pairs)

    of, told = len(spans), place.counted(filled, views)
    goal = 0.9 if place.name == "S3" else None
    yield _row(f"{name}, kept", over(first, place.fsspec), "fsspec", f"{told} of {of} maps", goal)
    told, unkept = place.counted(none, views), partial(read, none)
    yield _row(f"{name}, not kept", over(unkept, place.fsspec), "fsspec", f"{told} of {of} maps", 0.5)
    yield _row(f"{name}, not kept", over(unkept, place.plain), "the plain client")
    told, warm = place.counted(filled, views), partial(read, filled)
    yield _row(f"{name}, from the cache", over(warm, place.fsspec), "fsspec", told, 1.0)


def _reading(block: Block, views: list[int], expected: np.ndarray, out: np.ndarray) -> Seconds:
    """Into memory that is used again: pages that the system has yet to give would cost more than all else."""
    out.fill(0)
    spent = seconds(lambda: block.tokens(LAYERS[1], views, out=out))
    assert np.array_equal(out, expected)
    return spent


def _spans(case: Case, layer: str, views: Sequence[int]) -> list[Span]:
    """Where the maps of these views lie, by the index of their shard."""
    (shard,) = case.root.glob(f"features/*/*/{layer}/tokens/c.*")
    index = read_index(shard, VIEWS)
    path = str(shard.relative_to(case.root))
    return [(path, int(index[view, 0]), int(index[view].sum())) for view in views]


def _row(
    name: str,
    timed: Timed,
    peer: str,
    note: str = "",
    goal: float | None = None,
) -> Row:
    wall, cpu = (median_interval([theirs[kind] / own[kind] for own, theirs in timed]) for kind in (0, 1))
    ms = 1e3 * median_interval([own[0] for own, _ in timed])[0]
    told = f"CPU {cpu[0]:.2f}, ours {ms:,.1f} ms" + (f", {note}" if note else "")
    unit = f"of {peer} in wall seconds"
    return Row(name=name, value=wall[0], low=wall[1], high=wall[2], unit=unit, goal=goal, note=told)


def _s3(case: Case, caches: Iterator[Path], servers: ExitStack) -> Elsewhere:
    endpoint = servers.enter_context(_served(S3_SERVER))
    options = {**KEYS, "endpoint_url": endpoint}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
        config=Config(max_pool_connections=AT_ONCE),
    )
    client.create_bucket(Bucket="bucket")
    for path in case.root.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "bucket", f"feats.zarr/{path.relative_to(case.root)}")

    def plain(spans: Sequence[Span]) -> None:
        def get(span: Span) -> bytes:
            path, start, stop = span
            part = f"bytes={start}-{stop - 1}"
            return client.get_object(Bucket="bucket", Key=f"feats.zarr/{path}", Range=part)["Body"].read()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(get, spans))

    place = {"name": "S3", "url": "s3://bucket/feats.zarr", "options": options}
    return Elsewhere(**place, case=case, plain=plain, caches=caches)


def _web(case: Case, caches: Iterator[Path], servers: ExitStack) -> Elsewhere:
    folder = case.folder / "www"
    folder.mkdir()
    push(str(case.root), PushConfig(to=str(folder / "feats.zarr")), Console(quiet=True))
    url = servers.enter_context(_served(WEB_SERVER, str(folder)))

    async def gather(spans: Sequence[Span]) -> None:
        turns = asyncio.Semaphore(AT_ONCE)
        async with ClientSession() as session:

            async def get(span: Span) -> bytes:
                path, start, stop = span
                headers = {"Range": f"bytes={start}-{stop - 1}"}
                async with turns, session.get(f"{url}/feats.zarr/{path}", headers=headers) as answer:
                    return await answer.read()

            await asyncio.gather(*map(get, spans))

    def plain(spans: Sequence[Span]) -> None:
        asyncio.run(gather(spans))

    place = {"name": "web", "url": f"{url}/feats.zarr", "options": {}}
    return Elsewhere(**place, case=case, plain=plain, caches=caches)


@contextmanager
def _served(code: str, *words: str) -> Iterator[str]:
    command = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(run_alone(measure, "Stores elsewhere against plain range requests.", 7))
