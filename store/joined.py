"""Views by their number in a selection: where they lie, and reading any of their fields together.

Shapes: V views of the selection, N views or tokens asked for, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import SelectionError, did_you_mean, first_few
from .block import Block
from .grid_features import Empty, ViewBuffers
from .set_runs import seen_in_several

Rows = list[tuple[Block, list[int]]]
"""Views in order: of each block the indices that come next."""


def names_of(rows: Rows) -> tuple[str, ...]:
    """`<dataset>/<scene>/<frame>` of views."""
    return tuple(f"{block.scene}/{block.views[i].name}" for block, picked in rows for i in picked)


def view_table(parts: Sequence[Block]) -> list[dict[str, Any]]:
    """One row per view; see `Selection.table`."""
    return [
        {
            "scene": block.scene,
            "frame": view.name,
            "position": view.position,
            "grid": block.grid,
            "bundle": block.bundle.id,
            "row": row,
            "storage": dict(block.layers),
            "image_digest": view.image_digest,
        }
        for block in parts
        for row, view in zip(block.rows, block.views, strict=True)
    ]


class ViewIndex:
    """The views of some blocks, numbered in their order.

    Args:
        parts: the blocks.
        where: what errors call them.
    """

    def __init__(self, parts: Sequence[Block], where: str) -> None:
        self.parts, self._where = parts, where
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def split(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[N] indices of blocks, and [N] indices of views inside them.

        Raises:
            SelectionError: a number is not one of a view.
        """
        numbers = np.asarray(numbers, np.int64)
        outside = numbers[(numbers < 0) | (numbers >= len(self))]
        if len(outside):
            raise SelectionError(
                f"there is no view number {first_few(outside.tolist())}.",
                where=self._where,
                why=f"the selection has {len(self):,} views, numbered from 0 in the order of `table()`",
                fix="give numbers of rows of `table()`, or names of views",
            )
        blocks = np.searchsorted(self._starts, numbers, side="right") - 1
        return blocks, numbers - self._starts[blocks]

    def numbers(self, views: Sequence[int] | Sequence[str] | np.ndarray) -> np.ndarray:
        """[N] numbers of views that are given by number or by `<dataset>/<scene>/<frame>`.

        Raises:
            SelectionError: there is no such view.
        """
        return whole_numbers([self._number(one) if isinstance(one, str) else one for one in views], "views")

    def rows(self, numbers: np.ndarray) -> Rows:
        """The views, those of one block that follow each other together."""
        places = zip(*(axis.tolist() for axis in self.split(numbers)), strict=True)
        return [(self.parts[b], [i for _, i in run]) for b, run in groupby(places, key=lambda at: at[0])]

    def gather(self, layer: str, view: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """[N, D] tokens of a layer, f16 where all are stored so, else f32; see `Selection.gather`.

        Raises:
            SelectionError: there is no such token.
        """
        blocks, inside = self.split(view)
        row, col = whole_numbers(row, "row"), whole_numbers(col, "col")
        if not len(blocks) == len(row) == len(col):
            raise SelectionError(
                f"{len(blocks):,} views, {len(row):,} rows and {len(col):,} columns name no tokens.",
                where="gather",
                fix="give one of each for every token",
            )
        parts = []
        for b in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == b)
            self._check_tokens(self.parts[b], row[here], col[here])
            parts.append((here, self.parts[b].gather(layer, inside[here], row[here], col[here])))
        dtype = np.result_type(*(tokens.dtype for _, tokens in parts)) if parts else np.dtype(np.float32)
        out = np.empty((len(blocks), self.parts[0].width(layer)), dtype)
        for here, tokens in parts:
            out[here] = tokens
        return out

    def _check_tokens(self, block: Block, row: np.ndarray, col: np.ndarray) -> None:
        rows, cols = block.grid
        bad = (row < 0) | (row >= rows) | (col < 0) | (col >= cols)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise SelectionError(
                f"there is no token at row {row[at]}, column {col[at]}.",
                where=block.scene,
                why=f"its views have {rows} x {cols} tokens",
                fix="give token rows and columns, counted from 0; `sample` takes pixels",
            )

    def _number(self, name: str) -> int:
        if name not in self._by_name:
            raise SelectionError(
                f"view {name!r} is not in the selection.",
                where=self._where,
                fix=did_you_mean(name, self._by_name),
            )
        numbers = self._by_name[name]
        if len(numbers) > 1:
            raise seen_in_several(name, len(numbers), self._where)
        return numbers[0]

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        numbers: dict[str, list[int]] = {}
        for number, name in enumerate(self._all_names()):
            numbers.setdefault(name, []).append(number)
        return numbers

    def _all_names(self) -> Iterator[str]:
        return (f"{block.scene}/{view.name}" for block in self.parts for view in block.views)


def whole_numbers(values: object, name: str) -> np.ndarray:
    """[N] int64.

    Raises:
        SelectionError: they are no list of whole numbers.
    """
    numbers = np.asarray(values)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise SelectionError(
            f"{name} is no list of whole numbers.",
            where=name,
            why=f"it is {numbers.dtype} of shape {list(numbers.shape)}",
            fix="give one whole number for each token or view; `sample` takes pixels between them",
        )
    return numbers.astype(np.int64)


def read_rows(
    rows: Rows, layers: Sequence[str], fields: Sequence[str], where: str, empty: Empty = np.empty
) -> ViewBuffers:
    """Fields of some views, in one buffer each.

    Raises:
        SelectionError: the views have several token grids, or the store lacks a field of them.
    """
    grids = dict.fromkeys(block.grid for block, _ in rows)
    if len(grids) != 1:
        raise SelectionError(
            "views of several token grids do not fit into one array." if grids else "no view is asked for.",
            where=where,
            why=" and ".join(f"{height} x {width}" for height, width in grids),
            fix="read the views of each grid apart, as `load()` does",
        )
    count = sum(len(picked) for _, picked in rows)
    buffers, start = ViewBuffers([block for block, _ in rows], layers, fields, count, empty), 0
    for block, picked in rows:
        buffers.fill(start, block, picked)
        start += len(picked)
    return buffers
