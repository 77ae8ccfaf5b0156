"""The work on one bundle: decode ahead on threads, one forward for all layers, keep and write behind.

The calling thread does nothing but the forward passes and their casts. One thread takes what comes out,
in order, compresses it and sorts it into units; another writes the units.

Batches never cross a unit: so a unit's bytes are the same whether it was computed in one run or after
an interruption. They do cross scenes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from ..store.inside import check_there
from ..store.layout import GroupSpec
from ..store.writer import GroupWriter
from .bundle_pass import DECODERS, BundlePass
from .donors import Donor, Self
from .forward import Sets, encode
from .lane import Lane
from .owed import owed_units
from .plan import BundlePlan, Plan
from .sharing import Sharing
from .sink import Sink
from .tally import Tally

KEEPS_UNDER_WAY = 4
WRITES_UNDER_WAY = 2


class Worker:
    """Extracts the bundles of a plan, one after the other.

    Args:
        plan: what is to be done.
        batch: views per forward pass; whole sets, and at least one, where they are seen together.
        tally: counts what is done.
        done: called with the number of views whose features are complete.
        before_write: called before a shard is written (the run record goes first).
        note: called with a line for the user.
        sharing: with the runs beside this one; None = everything is written, whoever else writes it.
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
        sharing: Sharing | None = None,
    ) -> None:
        self.plan, self.batch, self.tally, self.sharing = plan, batch, tally, sharing
        self._done, self._before_write, self._note = done, before_write, note
        self._halved = False

    def work(
        self,
        part: BundlePlan,
        retry: frozenset[int] = frozenset(),
        units: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Write every missing unit of a bundle's groups; nothing is committed here.

        Args:
            part: the bundle.
            retry: rows that failed and are to be computed again.
            units: to write, by name of the group; None = all that the bundle is owed.

        Raises:
            StoreError: something could not be written.
            EncoderError: the encoder refuses its input.
        """
        with (
            Lane("write", WRITES_UNDER_WAY) as writer,
            Lane("keep", KEEPS_UNDER_WAY) as keeper,
            ThreadPoolExecutor(DECODERS, "decode") as decoders,
        ):
            # Made by the thread that uses them; they may take rows over from older groups at once.
            sinks = partial(self._sinks, part, writer, retry, units)
            layers = keeper.put(partial(sinks, part.layers)).result()
            others = keeper.put(partial(sinks, part.others)).result()
            self._take_over(layers.values())
            BundlePass(self, part, layers, others, keeper).run(decoders)

    def encode(self, sets: Sets, layers: tuple[str, ...]):
        """Forward; out of memory halves the batch once, with a notice."""
        try:
            return encode(self.plan.encoder, sets, layers, self.plan.device)
        except torch.OutOfMemoryError:
            if self._halved or len(sets) < 2:
                raise
        self._halved, self.batch = True, max(1, self.batch // 2)
        torch.cuda.empty_cache()
        self._note(f"out of memory: going on with batches of {self.batch}")
        half = (len(sets) + 1) // 2
        parts = [self.encode(sets[:half], layers), self.encode(sets[half:], layers)]
        return {layer: _joined(parts[0][layer], parts[1][layer]) for layer in layers}

    def finished(self, views: int) -> None:
        self.tally.views += views
        self._done(views)

    def _take_over(self, layers: Collection[Sink]) -> None:
        """Count the views that no layer wants any more, because all rows of it were stored already."""
        rows = set[int]().union(*(sink.owed for sink in layers))
        rows = rows.difference(*(sink.rows for sink in layers))
        self.tally.taken_over += len(rows)
        self._done(len(rows))

    def _sinks(
        self,
        part: BundlePlan,
        writer: Lane,
        retry: frozenset[int],
        units: Mapping[str, Sequence[int]] | None,
        specs: dict[str, GroupSpec],
    ) -> dict[str, Sink]:
        def submit(write: Callable[[], int]) -> Future[int]:
            return writer.put(partial(self._timed, write))

        return {
            name: self._sink(part, spec, submit, retry, None if units is None else units.get(name, ()))
            for name, spec in specs.items()
        }

    def _sink(
        self,
        part: BundlePlan,
        spec: GroupSpec,
        submit: Callable[[Callable[[], int]], Future[int]],
        retry: frozenset[int],
        units: Sequence[int] | None,
    ) -> Sink:
        root = self.plan.root
        writer = GroupWriter(root, spec)
        writer.prepare()
        units = owed_units(writer, retry) if units is None else units
        donor = Self(root, spec) if retry and writer.committed else Donor(root, spec, part.bundle)
        # What is computed again is there, and is to be replaced.
        return Sink(writer, submit, [donor], units, None if retry else self.sharing)

    def _timed(self, write: Callable[[], int]) -> int:
        check_there(self.plan.root)
        self._before_write()
        start = time.perf_counter()
        written = write()
        self.tally.write_s += time.perf_counter() - start
        self.tally.bytes += written
        return written


def _joined(a, b):
    prefix = None if a.prefix is None else torch.cat([a.prefix, b.prefix])
    return type(a)(tokens=torch.cat([a.tokens, b.tokens]), prefix=prefix, prefix_names=a.prefix_names)
