"""The loader: batches of stored views for a training or a measurement, read ahead on threads.

Threads read straight from the page cache into the batch, one copy; processes would only copy once more. What
comes when is a function of (seed, epoch, step), so a loader continues anywhere from a few numbers.

Shapes: B sets, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SelectionError
from .batch_memory import BatchMemory
from .batch_order import EpochOrder, epoch_order, step_count
from .grid_features import GridFeatures, ViewBuffers, checked_field, pinned
from .joined import Rows, names_of
from .key import digest
from .loader_items import items_by_kind, loader_items
from .read_ahead import THREADS, read_ahead
from .schema import ViewSet

if TYPE_CHECKING:
    from .selection import Selection

BATCHES_KEPT = 4
"""Batches whose memory is used again: those under way, and the one just let go."""

VIEWS_PER_JOB = 8
"""Views that one thread reads at a time: enough to be worth a switch, few enough to use every thread."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Batch(GridFeatures[Any]):
    """Tensors of a batch: bf16 as bfloat16, u8 as `QuantizedTokens`.

    Attributes:
        sets: those that the batch holds; then arrays are [B, V, ...], and `views` lists all, set by set.
        repeated: another rank has this batch, too, because fewer items than ranks were left.
    """

    sets: tuple[ViewSet, ...] = ()
    repeated: bool = False


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How a selection is read.

    Attributes:
        batch: views, or sets, of one batch of one rank.
        fields: what is read of views; see `FIELDS`.
        seed: of the order.
        shuffle: another order in every epoch; without, the order of `table()`, or of the sets.
        drop_last: leave out what does not fill a batch of every rank.
        rank, ranks: which of how many processes this is.
        pin: keep batches in pinned memory, from which copies to a GPU run beside the computation.
        threads: that read; as many as processors, at most 16.

    Raises:
        SelectionError: a number is out of its range, or a field is unknown.
    """

    batch: int = 32
    fields: tuple[str, ...] = ("tokens",)
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    rank: int = 0
    ranks: int = 1
    pin: bool = False
    threads: int = THREADS

    def __post_init__(self) -> None:
        for name in self.fields:
            checked_field(name)
        if min(self.batch, self.threads) < 1 or not 0 <= self.rank < self.ranks or self.seed < 0:
            names = ("batch", "rank", "ranks", "seed", "threads")
            raise SelectionError(
                "these options of a loader cannot be meant.",
                where=", ".join(f"{name}={getattr(self, name)}" for name in names),
                fix="batch and threads are 1 or more, rank from 0 below ranks, seed 0 or more",
            )


class Loader:
    """Batches of a selection's views, or of view sets whose views it has.

    One iteration is the rest of the current epoch; the next one is of the next epoch.

    Args:
        selection: whose views.
        options: how they are read.
        sets: batches hold these sets, whole; None = single views.

    Raises:
        SelectionError: no set lies in the selection, or the store lacks a field.

    Attributes:
        left_out: how many sets are not wholly in the selection, or have several token grids.
    """

    def __init__(
        self, selection: Selection, options: LoaderOptions, sets: Sequence[ViewSet] | None = None
    ) -> None:
        self.options, self._index, self._layers = options, selection.index, selection.layers
        self._members, self._sets, self.left_out = loader_items(selection, sets)
        self._kinds = items_by_kind(selection, self._members)
        self._identity = {
            "selection": selection.fingerprint,
            "sets": None if sets is None else digest([one.digest for one in self._sets])[:16],
            **{name: getattr(options, name) for name in ("batch", "seed", "shuffle", "drop_last", "ranks")},
        }
        self._memory = BatchMemory(BATCHES_KEPT * (len(options.fields) + len(self._layers)))
        self._epoch = self._step = 0
        self._buffers(self._index.rows(self._members[0][:1]), 0)

    def __repr__(self) -> str:
        items = f"{len(self._sets):,} sets" if self._sets else f"{len(self._members):,} views"
        return f"Loader({items} in {len(self):,} batches; epoch {self._epoch}, step {self._step})"

    def __len__(self) -> int:
        """Batches of an epoch, for this and every rank."""
        sizes, options = [len(kind) for kind in self._kinds], self.options
        return step_count(sizes, batch=options.batch, ranks=options.ranks, drop_last=options.drop_last)

    def __iter__(self) -> Generator[Batch]:
        order, start = self._order(), self._step
        if start >= len(order):
            order, start, self._epoch, self._step = self._order(1), 0, self._epoch + 1, 0
        batches = read_ahead(self._reads(order, start), _finished, self.options.threads)
        try:
            for step, batch in enumerate(batches, start + 1):
                self._step = step
                yield batch
        finally:
            batches.close()
        self._epoch, self._step = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on behind the batch that was given last; the same for every rank."""
        return {"epoch": self._epoch, "step": self._step, "loader": dict(self._identity)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where that state was taken.

        Raises:
            SelectionError: it is of a loader with other views or another order.
        """
        theirs = state["loader"]
        differing = [name for name, mine in self._identity.items() if theirs.get(name) != mine]
        if differing:
            raise SelectionError(
                "this is the state of another loader.",
                where="load_state_dict",
                why="; ".join(f"{n}: saved {theirs.get(n)}, now {self._identity[n]}" for n in differing),
                fix="make the loader with what it had when its state was saved",
            )
        self._epoch, self._step = int(state["epoch"]), int(state["step"])

    def _order(self, later: int = 0) -> EpochOrder:
        options = self.options
        return epoch_order(
            self._kinds,
            batch=options.batch,
            ranks=options.ranks,
            seed=options.seed if options.shuffle else None,
            epoch=self._epoch + later,
            drop_last=options.drop_last,
        )

    def _reads(self, order: EpochOrder, start: int) -> Iterator[list[Callable[[], Callable[[], Batch]]]]:
        """For each batch, jobs that fill its buffers, and say how to finish it."""
        for step in range(start, len(order)):
            items, repeated = order.items(step, self.options.rank)
            numbers = np.concatenate([self._members[item] for item in items.tolist()])
            sets = tuple(self._sets[item] for item in items.tolist()) if self._sets else ()
            rows = self._index.rows(numbers)
            buffers = self._buffers(rows, len(numbers))
            finish = partial(_batch, buffers, names_of(rows), sets, repeated)
            yield [partial(_fill, buffers, finish, job) for job in _jobs(rows)]

    def _buffers(self, rows: Rows, views: int) -> ViewBuffers:
        empty = pinned if self.options.pin else self._memory
        return ViewBuffers([block for block, _ in rows], self._layers, self.options.fields, views, empty)


def _jobs(rows: Rows) -> Iterator[list[tuple[int, Any, list[int]]]]:
    """Runs of rows with the place of the first in the batch, cut into what one thread reads."""
    job, held, start = [], 0, 0
    for block, picked in rows:
        for i in range(0, len(picked), VIEWS_PER_JOB):
            run = picked[i : i + VIEWS_PER_JOB]
            job.append((start, block, run))
            start, held = start + len(run), held + len(run)
            if held >= VIEWS_PER_JOB:
                yield job
                job, held = [], 0
    if job:
        yield job


def _fill(
    buffers: ViewBuffers, finish: Callable[[], Batch], job: list[tuple[int, Any, list[int]]]
) -> Callable[[], Batch]:
    for start, block, picked in job:
        buffers.fill(start, block, picked)
    return finish


def _finished(parts: list[Callable[[], Batch]]) -> Batch:
    return parts[0]()


def _batch(buffers: ViewBuffers, views: tuple[str, ...], sets: tuple[ViewSet, ...], repeated: bool) -> Batch:
    features = buffers.tensors(views)
    values = {field.name: getattr(features, field.name) for field in fields(features)}
    batch = Batch(**values, sets=sets, repeated=repeated)
    return _by_set(batch, len(sets)) if sets else batch


def _by_set(batch: Batch, sets: int) -> Batch:
    """[B, V, ...] of [B * V, ...]."""
    from ..kernels.quantized import QuantizedTokens

    def split(value: Any) -> Any:
        if isinstance(value, dict):
            return {layer: split(one) for layer, one in value.items()}
        if isinstance(value, QuantizedTokens):
            parts = ("values", "scale", "offset")
            return replace(value, **{part: split(getattr(value, part)) for part in parts})
        return value.view(sets, -1, *value.shape[1:])

    names = [one.name for one in fields(GridFeatures) if one.name not in ("grid", "views")]
    there = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    return replace(batch, **{name: split(value) for name, value in there.items()})
