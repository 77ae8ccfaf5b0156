"""The work on one bundle: decode ahead on threads, one forward for all layers, write behind.

Batches never cross a unit: so a unit's bytes are the same whether it was computed in one run or after
an interruption. They do cross scenes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import SceneError, ShardError
from ..store.layout import GroupSpec
from ..store.writer import GroupWriter
from .donors import Donor, Self
from .forward import encode, missing_field, stored
from .plan import BundlePlan, Plan
from .prepare import PreparedView, Request, prepare
from .sink import Sink

GONE = "the scene was packed again before this view was extracted"
DECODERS = 4
WRITES_UNDER_WAY = 2


@dataclass
class Tally:
    """What a run did: counts, seconds by stage (of threads, so they may add up to more), failures.

    Attributes:
        failures: by (bundle id, row, layer or None for all), the reason.
    """

    views: int = 0
    bytes: int = 0
    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    failures: dict[tuple[str, int, str | None], str] = field(default_factory=dict)


class Worker:
    """Extracts the bundles of a plan, one after the other.

    Args:
        plan: what is to be done.
        batch: views per forward pass.
        tally: counts what is done.
        done: called with the number of views whose features are complete.
        before_write: called before a shard is written (the run record goes first).
        note: called with a line for the user.
    """

    def __init__(
        self,
        plan: Plan,
        batch: int,
        tally: Tally,
        *,
        done: Callable[[int], None] = lambda views: None,
        before_write: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.plan, self.batch, self.tally = plan, batch, tally
        self._done, self._before_write, self._note = done, before_write, note
        self._halved = False

    def work(self, part: BundlePlan, retry: frozenset[int] = frozenset()) -> None:
        """Write every missing unit of a bundle's groups; nothing is committed here.

        Args:
            part: the bundle.
            retry: rows that failed and are to be computed again.

        Raises:
            StoreError: something could not be written.
            EncoderError: the encoder refuses its input.
        """
        with ThreadPoolExecutor(1, "write") as writer, ThreadPoolExecutor(DECODERS, "decode") as decoders:
            pending: deque[Future[int]] = deque()

            def submit(write: Callable[[], int]) -> Future[int]:
                while len(pending) >= WRITES_UNDER_WAY:
                    pending.popleft().result()
                pending.append(writer.submit(self._timed, write))
                return pending[-1]

            layers = {n: self._sink(part, spec, submit, retry) for n, spec in part.layers.items()}
            others = {n: self._sink(part, spec, submit, retry) for n, spec in part.others.items()}
            _Pass(self, part, layers, others).run(decoders)
            while pending:
                pending.popleft().result()

    def encode(self, views: Sequence[PreparedView], layers: tuple[str, ...]):
        """Forward; out of memory halves the batch once, with a notice."""
        try:
            return encode(self.plan.encoder, views, layers, self.plan.device)
        except torch.OutOfMemoryError:
            if self._halved or len(views) < 2:
                raise
        self._halved, self.batch = True, max(1, self.batch // 2)
        torch.cuda.empty_cache()
        self._note(f"out of memory: going on with batches of {self.batch}")
        half = (len(views) + 1) // 2
        parts = [self.encode(views[:half], layers), self.encode(views[half:], layers)]
        return {layer: _joined(parts[0][layer], parts[1][layer]) for layer in layers}

    def finished(self, views: int) -> None:
        self.tally.views += views
        self._done(views)

    def _sink(
        self,
        part: BundlePlan,
        spec: GroupSpec,
        submit: Callable[[Callable[[], int]], Future[int]],
        retry: frozenset[int],
    ) -> Sink:
        root = self.plan.root
        writer = GroupWriter(root, spec)
        writer.prepare()
        if retry and writer.committed and spec.by_unit:
            unit = next(iter(spec.by_unit.values())).unit
            return Sink(writer, submit, [Self(root, spec)], sorted({row // unit for row in retry}))
        return Sink(writer, submit, [Donor(root, spec, part.bundle)])

    def _timed(self, write: Callable[[], int]) -> int:
        self._before_write()
        start = time.perf_counter()
        written = write()
        self.tally.write_s += time.perf_counter() - start
        self.tally.bytes += written
        return written


class _Pass:
    """One pass over a bundle's rows."""

    def __init__(
        self, worker: Worker, part: BundlePlan, layers: dict[str, Sink], others: dict[str, Sink]
    ) -> None:
        self.worker, self.plan, self.part = worker, worker.plan, part
        self.layers, self.others = layers, others
        self.unit = next(iter(part.layers.values())).arrays["tokens"].unit
        needs = self.plan.encoder.info.needs
        self.request = Request(
            preprocess=self.plan.key.preprocess,
            grid=part.bundle.grid,
            patch=self.plan.encoder.info.patch_size,
            points=("points" in others and bool(others["points"].rows)) or "token_point_world" in needs,
            depth=("geometry" in others and bool(others["geometry"].rows)) or "depth_m" in needs,
        )

    def run(self, decoders: ThreadPoolExecutor) -> None:
        sinks = [*self.layers.values(), *self.others.values()]
        rows = sorted(set().union(*(sink.rows for sink in sinks)))
        batch: list[tuple[int, PreparedView]] = []
        for row, view in self._ahead(decoders, rows):
            if batch and (row // self.unit != batch[0][0] // self.unit or len(batch) >= self.worker.batch):
                self._forward(batch)
                batch = []
            if view is None:
                self._give_up(row)
                continue
            self.worker.tally.decode_s += view.decode_s
            self._keep_view(row, view)
            if self._takes(row, view):
                batch.append((row, view))
        if batch:
            self._forward(batch)

    def _ahead(self, pool: ThreadPoolExecutor, rows: list[int]) -> Iterator[tuple[int, PreparedView | None]]:
        """Rows in order, decoded ahead; None for a view that cannot be read."""
        window = 2 * self.worker.batch + DECODERS
        waiting: deque[tuple[int, Future[PreparedView | str]]] = deque()
        for row in [*rows, None]:
            while waiting and (row is None or len(waiting) >= window):
                ready, future = waiting.popleft()
                view = future.result()
                if isinstance(view, str):
                    self.worker.tally.failures[self.part.bundle.id, ready, None] = view
                yield ready, None if isinstance(view, str) else view
            if row is not None:
                waiting.append((row, pool.submit(self._prepared, row)))

    def _prepared(self, row: int) -> PreparedView | str:
        source = self.part.sources[row]
        if source is None:
            return GONE
        try:
            return prepare(source.scene, source.view, self.request)
        except (SceneError, ShardError) as error:
            return error.what

    def _give_up(self, row: int) -> None:
        for sink in [*self.layers.values(), *self.others.values()]:
            if sink.wants(row):
                sink.add(row, None)
        self.worker.finished(1)

    def _keep_view(self, row: int, view: PreparedView) -> None:
        """Hand the view's pixels, depth and points to whoever still wants them."""
        values = {
            "images": {"image": view.image},
            "geometry": None if view.depth_m is None else {"depth_m": view.depth_m, "valid": view.valid},
            "points": None
            if view.points is None
            else {
                "token_point_world": view.points.world,
                "token_valid": view.points.valid,
                "token_spread_m": view.points.spread_m,
            },
        }
        for name, sink in self.others.items():
            if sink.wants(row):
                sink.add(row, values[name])

    def _takes(self, row: int, view: PreparedView) -> bool:
        """Whether the view goes into a forward pass."""
        wanted = [sink for sink in self.layers.values() if sink.wants(row)]
        lacks = missing_field(view, self.plan.encoder.info.needs) if wanted else ""
        if lacks:
            self.worker.tally.failures[self.part.bundle.id, row, None] = f"the view has no {lacks}"
            for sink in wanted:
                sink.add(row, None)
            self.worker.finished(1)
        return bool(wanted) and not lacks

    def _forward(self, batch: list[tuple[int, PreparedView]]) -> None:
        start = time.perf_counter()
        layers = tuple(n for n, sink in self.layers.items() if any(sink.wants(row) for row, _ in batch))
        maps = self.worker.encode([view for _, view in batch], layers)
        for layer in layers:
            tokens, finite = stored(maps[layer].tokens[:, 0], self.plan.storages[layer])
            values = {"tokens": tokens}
            prefix = maps[layer].prefix
            if prefix is not None:
                values["prefix"], prefix_finite = stored(prefix[:, 0], self.plan.storages[layer])
                finite = finite & prefix_finite
            self._keep_layer(layer, [row for row, _ in batch], values, finite)
        self.worker.tally.encode_s += time.perf_counter() - start
        self.worker.finished(len(batch))

    def _keep_layer(
        self, layer: str, rows: list[int], values: dict[str, np.ndarray], finite: np.ndarray
    ) -> None:
        sink = self.layers[layer]
        for i, row in enumerate(rows):
            if not sink.wants(row):
                continue
            if not finite[i]:
                why = f"{layer} is not finite in {self.plan.storages[layer]}"
                self.worker.tally.failures[self.part.bundle.id, row, layer] = why
            sink.add(row, {name: array[i] for name, array in values.items()} if finite[i] else None)


def _joined(a, b):
    prefix = None if a.prefix is None else torch.cat([a.prefix, b.prefix])
    return type(a)(tokens=torch.cat([a.tokens, b.tokens]), prefix=prefix, prefix_names=a.prefix_names)
