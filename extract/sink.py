"""Where the rows of a bundle go: one sink per group, a unit on disk as soon as its rows are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from ..store.layout import GroupSpec
from ..store.writer import GroupWriter, UnitBuffer


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
    """

    def __init__(
        self,
        writer: GroupWriter,
        submit: Submit,
        donors: Sequence[RowDonor] = (),
        units: Sequence[int] | None = None,
    ) -> None:
        self.writer, self._submit = writer, submit
        units = writer.missing_units() if units is None else units
        self._buffers = {unit: UnitBuffer(writer.spec, unit) for unit in units}
        for row in sorted(self.rows):
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
            self._submit(lambda: self.writer.write(buffer))

    def _unit(self, row: int) -> int:
        specs = list(self.spec.by_unit.values())
        return row // specs[0].unit if specs else -1
