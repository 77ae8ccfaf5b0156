"""Where the rows of a bundle go: one sink per group, a unit on disk as soon as its rows are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from ..store.layout import GroupSpec
from ..store.writer import GroupWriter, UnitBuffer
from .sharing import Sharing


class RowDonor(Protocol):
    """Rows that are stored already."""

    def values(self, row: int) -> Mapping[str, np.ndarray] | None: ...


Submit = Callable[[Callable[[], int]], "Future[int]"]


class Sink:
    """Takes rows of one group and writes each missing unit once all its rows are there.

    Args:
        writer: of the group.
        submit: runs a write behind the work, and waits when too many are under way.
        donors: where rows come from that need not be computed; they are taken over at once.
        units: to write; None = those that are missing.
        sharing: what other runs write is left to them; None = all of it is written.
    """

    def __init__(
        self,
        writer: GroupWriter,
        submit: Submit,
        donors: Sequence[RowDonor] = (),
        units: Sequence[int] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.writer, self._submit, self.sharing = writer, submit, sharing
        self._begun: set[int] = set()
        units = writer.missing_units() if units is None else units
        self._buffers = {unit: UnitBuffer(writer.spec, unit) for unit in units}
        self.owed = frozenset(self.rows)
        for row in sorted(self.owed):
            values = next((v for donor in donors if (v := donor.values(row)) is not None), None)
            if values is not None:
                self.add(row, values)

    @property
    def spec(self) -> GroupSpec:
        return self.writer.spec

    @property
    def rows(self) -> set[int]:
        """Rows that are still to come."""
        specs = list(self.spec.by_unit.values())
        return {
            row
            for unit, buffer in self._buffers.items()
            for row in specs[0].rows(unit)
            if row not in buffer.rows
        }

    def begin(self, row: int) -> int | None:
        """The unit of a row that is still to come, when the row is the first of it that is asked for."""
        unit = self._unit(row)
        if unit in self._begun or unit not in self._buffers:
            return None
        self._begun.add(unit)
        return unit

    def leave(self, unit: int) -> None:
        """Another run writes the unit."""
        del self._buffers[unit]

    def wants(self, row: int) -> bool:
        buffer = self._buffers.get(self._unit(row))
        return buffer is not None and row not in buffer.rows

    def add(self, row: int, values: Mapping[str, np.ndarray] | None) -> None:
        """One view's arrays; None = it has none, and readers see the fill value."""
        unit = self._unit(row)
        buffer = self._buffers[unit]
        buffer.add(row, values)
        if buffer.complete:
            del self._buffers[unit]
            self._submit(lambda: self._write(buffer))

    def _write(self, buffer: UnitBuffer) -> int:
        if self.sharing is None:
            return self.writer.write(buffer)
        there = self.sharing.written_by_another(self.writer, buffer.unit)
        written = 0 if there else self.writer.write(buffer)
        self.sharing.end(self.writer, buffer.unit)
        return written

    def _unit(self, row: int) -> int:
        specs = list(self.spec.by_unit.values())
        return row // specs[0].unit if specs else -1
