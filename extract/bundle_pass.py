"""One pass over the rows of a bundle: decoded ahead, forward in batches, kept behind on another thread."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..errors import SceneError, ShardError
from .forward import missing_field, on_host, stored_arrays
from .lane import Lane
from .plan import BundlePlan
from .prepare import PreparedView, Request, prepare
from .sink import Sink

if TYPE_CHECKING:
    from .worker import Worker

Row = tuple[int, PreparedView | None]
"""A row of the bundle and its view; None for a view that cannot be read."""

GONE = "the scene was packed again before this view was extracted"
DECODERS = min(16, os.cpu_count() or 1)


class BundlePass:
    """Takes every wanted row through all of it. Methods named `_keep*` run on the keeper's thread."""

    def __init__(
        self,
        worker: Worker,
        part: BundlePlan,
        layers: dict[str, Sink],
        others: dict[str, Sink],
        keeper: Lane,
    ) -> None:
        self.worker, self.plan, self.part = worker, worker.plan, part
        self.layers, self.others, self.keeper = layers, others, keeper
        self.unit = next(iter(part.layers.values())).arrays["tokens"].unit
        info, needs = self.plan.encoder.info, self.plan.encoder.info.needs
        self.request = Request(
            preprocess=self.plan.key.preprocess,
            grid=part.bundle.grid,
            patch=info.patch_size,
            stride=info.stride,
            points=("points" in others and bool(others["points"].rows)) or "token_point_world" in needs,
            depth=("geometry" in others and bool(others["geometry"].rows)) or "depth_m" in needs,
        )

    def run(self, decoders: ThreadPoolExecutor) -> None:
        seen: list[list[Row]] = []
        batch: list[list[tuple[int, PreparedView]]] = []
        for one in self._sets(decoders):
            if batch and self._ends_before(one, batch):
                self._forward(batch)
                batch = []
            seen.append(one)
            views = [(row, view) for row, view in one if view is not None]
            if len(views) == len(one) and self._takes(views):
                batch.append(views)
            if len(seen) * len(one) >= self.worker.batch:
                self._hand_over(partial(self._keep_views, seen))
                seen = []
        if batch:
            self._forward(batch)
        self._hand_over(partial(self._keep_views, seen))

    @property
    def _sinks(self) -> list[Sink]:
        return [*self.layers.values(), *self.others.values()]

    def _sets(self, decoders: ThreadPoolExecutor) -> Iterator[list[Row]]:
        """Rows that are encoded together, in order: whole sets, or single views."""
        size = self.part.bundle.together
        wanted = {row // size for row in set().union(*(sink.rows for sink in self._sinks))}
        numbers = (number for number in sorted(wanted) if self._begin(number * size))
        ahead = self._ahead(decoders, (number * size + i for number in numbers for i in range(size)))
        while one := list(islice(ahead, size)):
            yield one

    def _begin(self, row: int) -> bool:
        """Whether a row, and those it is encoded with, are still wanted when other runs had their choice."""
        first = [(sink, unit) for sink in self._sinks if (unit := sink.begin(row)) is not None]
        sharing = self.worker.sharing
        shared = [(sink, unit) for sink, unit in first if sink.sharing is not None]
        if sharing is not None and shared:
            # All at once: else two runs would each get some layers of the same views.
            mine = sharing.begin([(sink.writer, unit) for sink, unit in shared])
            for (sink, unit), own in zip(shared, mine, strict=True):
                if not own:
                    sink.leave(unit)
        together = range(row, row + self.part.bundle.together)
        return any(sink.wants(one) for sink in self._sinks for one in together)

    def _ends_before(self, one: list[Row], batch: list[list[tuple[int, PreparedView]]]) -> bool:
        """Whether the batch is full, or ends because another unit begins."""
        other_unit = one[0][0] // self.unit != batch[0][0][0] // self.unit
        return other_unit or (len(batch) + 1) * len(one) > self.worker.batch

    def _ahead(self, pool: ThreadPoolExecutor, rows: Iterable[int]) -> Iterator[Row]:
        """Rows in order, decoded ahead; None for a view that cannot be read."""
        window = 2 * self.worker.batch + DECODERS
        waiting: deque[tuple[int, Future[PreparedView | str]]] = deque()
        for row in chain(rows, [None]):
            while waiting and (row is None or len(waiting) >= window):
                yield self._awaited(*waiting.popleft())
            if row is not None:
                waiting.append((row, pool.submit(self._prepared, row)))

    def _awaited(self, row: int, future: Future[PreparedView | str]) -> Row:
        start = time.perf_counter()
        view = future.result()
        self.worker.tally.wait_s += time.perf_counter() - start
        if isinstance(view, str):
            self.worker.tally.failures[self.part.bundle.id, row, None] = view
            return row, None
        self.worker.tally.decode_s += view.decode_s
        return row, view

    def _prepared(self, row: int) -> PreparedView | str:
        source = self.part.sources[row]
        if source is None:
            return GONE
        try:
            return prepare(source.scene, source.view, self.request)
        except (SceneError, ShardError) as error:
            return error.what

    def _takes(self, views: list[tuple[int, PreparedView]]) -> bool:
        """Whether the views go into a forward pass."""
        needs = self.plan.encoder.info.needs
        return any(map(self._wanted, dict(views))) and not any(missing_field(v, needs) for _, v in views)

    def _wanted(self, row: int) -> bool:
        """Whether some layer still wants the row."""
        return any(sink.wants(row) for sink in self.layers.values())

    def _forward(self, batch: list[list[tuple[int, PreparedView]]]) -> None:
        start = time.perf_counter()
        rows = [row for one in batch for row, _ in one]
        layers = tuple(name for name, sink in self.layers.items() if any(map(sink.wants, rows)))
        maps = self.worker.encode([[view for _, view in one] for one in batch], layers)
        cast = {layer: stored_arrays(maps[layer], self.plan.storages[layer]) for layer in layers}
        self.worker.tally.encode_s += time.perf_counter() - start
        self._hand_over(partial(self._keep_features, rows, cast))

    def _hand_over(self, keep: Callable[[], None]) -> None:
        start = time.perf_counter()
        self.keeper.put(partial(self._keep, keep))
        self.worker.tally.wait_s += time.perf_counter() - start

    def _keep(self, keep: Callable[[], None]) -> None:
        start = time.perf_counter()
        keep()
        self.worker.tally.keep_s += time.perf_counter() - start

    def _keep_views(self, sets: list[list[Row]]) -> None:
        for one in sets:
            for row, view in one:
                if view is None:
                    self._keep_nothing(row, self._sinks)
                else:
                    self._keep_view(row, view)
            reason = self._unfit(one)
            for row, view in one if reason else ():
                if view is not None and self._wanted(row):
                    self.worker.tally.failures[self.part.bundle.id, row, None] = reason
                    self._keep_nothing(row, list(self.layers.values()))

    def _unfit(self, one: list[Row]) -> str:
        """Why views cannot be encoded together, or an empty string."""
        needs, alone = self.plan.encoder.info.needs, len(one) == 1
        for row, view in one:
            lacks = "" if view is None else missing_field(view, needs)
            name = "the view" if alone else f"{self.part.views[row].name}, a view of its set,"
            if lacks:
                return f"{name} has no {lacks}"
            if view is None and not alone:
                return f"{name} cannot be used: {self.worker.tally.failures[self.part.bundle.id, row, None]}"
        return ""

    def _keep_nothing(self, row: int, sinks: list[Sink]) -> None:
        counts = self._wanted(row)
        for sink in sinks:
            if sink.wants(row):
                sink.add(row, None)
        if counts:
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

    def _keep_features(self, rows: list[int], cast: dict[str, tuple[dict[str, Tensor], Tensor]]) -> None:
        wanted = sum(map(self._wanted, rows))
        for layer, (arrays, finite) in cast.items():
            values = {name: on_host(tensor) for name, tensor in arrays.items()}
            self._keep_layer(layer, rows, values, on_host(finite))
        self.worker.finished(wanted)

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
