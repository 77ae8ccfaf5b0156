"""Which chunks' checksums are still to be verified: `always` all, at the `first` touch, or `never` any."""

from __future__ import annotations

import numpy as np

CHECKS = ("always", "first", "never")

Identity = tuple[int, int, int]
"""Of a file, from `file_identity`: chunks of a file that took another one's place were not seen."""


class Checks:
    """The touched chunks of one array. Safe for threads: at worst both verify the same chunk.

    Args:
        check: one of `CHECKS`.
        chunks: in each file.
    """

    def __init__(self, check: str, chunks: int) -> None:
        self._check, self._chunks = check, chunks
        self._seen: dict[int, tuple[Identity, np.ndarray]] = {}

    def due(self, unit: int, identity: Identity, chunk: int) -> bool:
        """Whether one chunk of a file is to be verified."""
        if self._check != "first":
            return self._check == "always"
        return not self._of(unit, identity)[chunk]

    def all_due(self, unit: int, identity: Identity, chunks: np.ndarray) -> np.ndarray:
        """Those of `chunks` [N] that are to be verified, each once, ascending."""
        seen = self._of(unit, identity)
        if self._check == "never" or (self._check == "first" and seen.all()):
            return chunks[:0]
        due = chunks if self._check == "always" else chunks[~seen[chunks]]
        return np.unique(due) if len(due) else due

    def passed(self, unit: int, identity: Identity, chunk: int) -> None:
        """Note that a chunk was found as it was written."""
        if self._check == "first":
            self._of(unit, identity)[chunk] = True

    def _of(self, unit: int, identity: Identity) -> np.ndarray:
        kept = self._seen.get(unit)
        if kept is None or kept[0] != identity:
            kept = self._seen[unit] = (identity, np.zeros(self._chunks, bool))
        return kept[1]
