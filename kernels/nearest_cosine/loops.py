"""Loops over one tile of similarities while it is in the processor's cache. Compiled by numba.

A tile [n, m] holds the similarities of n tokens of one view and all m tokens of a later one.

Shapes: K keys that are kept, G groups, H bins.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LANES = 16
"""Columns that are compared at a time; only where one of them is wanted is each looked at."""

PART, BAND = 64, 16
"""Columns of a row, and rows of a column, whose maximum is taken first."""

FINITE = {"nnan", "nsz"}
"""Similarities are finite, as unit vectors are; then maxima are vectorised."""

LOWEST = np.float32(-2)
"""Below every cosine: the similarity of an ignored pair, and of a key that is not there."""

MARGIN = np.float32(1e-6)
"""Above the spacing of float32, so that what is `>` a bound less this is also all that is equal to it."""


@njit(cache=True, nogil=True)
def count_listed(tile, first_row, ignored, positive, place, group, corr, noncorr):
    """Move corresponding pairs from `noncorr` to `corr`, and take ignored ones out of tile and counts.

    Args:
        tile: [n, m], of the rows from `first_row` on; ignored pairs are overwritten.
        ignored, positive: (rows, start, stop); entries of `rows` in the bounds of each row, of this tile
            and of others, mapped by `place` to columns.
        place: (first, [P]) the column of token `first + p`, -1 = takes no part.
        group: histogram of each row's corresponding pairs.
        corr: [G, H + 1] int64; noncorr: [H + 1] int64.
    """
    half = np.float32((noncorr.shape[0] - 1) / 2)
    first, column = place
    for i in range(tile.shape[0]):
        rows, start, stop = ignored
        for entry in range(start[first_row + i], stop[first_row + i]):
            j = column[rows[entry] - first]
            if j >= 0:
                tile[i, j] = LOWEST
                noncorr[0] -= 1  # where `count` puts it
        rows, start, stop = positive
        for entry in range(start[first_row + i], stop[first_row + i]):
            j = column[rows[entry] - first]
            if j >= 0 and tile[i, j] > LOWEST:
                here = max(np.int32((tile[i, j] + np.float32(1)) * half), 0)
                corr[group[first_row + i], here] += 1
                noncorr[here] -= 1


@njit(cache=True, nogil=True)
def count(tile, counts):
    """Add similarities [n, m] to counts [H + 1] int64."""
    half = np.float32((counts.size - 1) / 2)
    here = np.empty(tile.shape[1], np.int32)
    for i in range(tile.shape[0]):
        row = tile[i]
        for j in range(row.size):  # apart from the counting, so that it is vectorised
            here[j] = max(np.int32((row[j] + np.float32(1)) * half), 0)
        for j in range(row.size):
            counts[here[j]] += 1


@njit(forceinline=True)
def _insert(best, keys, row, value, key):
    """Put a value into its place in a row of best [..., K], behind its equals; the last one falls out.

    All places are gone through and nothing branches, as branches cannot be foreseen here.
    """
    above = False
    for at in range(best.shape[1]):
        old, old_key = best[row, at], keys[row, at]
        above |= value > old  # those behind move on, their equals too
        best[row, at], keys[row, at] = value if above else old, key if above else old_key
        value, key = old if above else value, old_key if above else key


@njit(cache=True, nogil=True, fastmath=FINITE)
def best_of_rows(tile, best, keys):
    """The K greatest of each row, descending: best [n, K] with their columns, keys [n, K].

    The K greatest of a row are at least the Kth of the maxima of its parts: few others are looked at.
    """
    width = tile.shape[1]
    greatest = np.empty((width + PART - 1) // PART, tile.dtype)
    for i in range(tile.shape[0]):
        row = tile[i]
        best[i, :] = LOWEST
        for part in range(greatest.size):
            value = row[part * PART]
            for j in range(part * PART + 1, min(part * PART + PART, width)):
                value = max(value, row[j])
            greatest[part] = value
            for at in range(best.shape[1]):
                old = best[i, at]
                best[i, at], value = max(old, value), min(old, value)
        least = max(best[i, -1] - MARGIN, LOWEST)
        best[i, :], keys[i, :] = LOWEST, -1
        for part in range(greatest.size):
            if greatest[part] > least:
                for j in range(part * PART, min(part * PART + PART, width)):
                    if row[j] > least:
                        _insert(best, keys, i, row[j], j)
                        least = max(least, best[i, -1])


@njit(cache=True, nogil=True, fastmath=FINITE)
def best_of_columns(tile, first_row, begin, end, least, best, keys):
    """Let the rows of a tile, which come after those seen before, compete in columns begin to end.

    As in `best_of_rows`, with the maxima of bands of rows.

    Args:
        tile: [n, m], of the rows from `first_row` on.
        least: [m] the last of `best`, or a little less than it will be, apart so that it is read at once.
        best, keys: [m, K] the greatest so far, descending, and their rows.
    """
    greatest = _greatest_of_bands(tile, begin, end)
    _raise_least(greatest, least[begin:end], best.shape[1])
    for band in range(greatest.shape[0]):
        rows = range(band * BAND, min(band * BAND + BAND, tile.shape[0]))
        for first in range(begin, end, LANES):
            wanted = first + LANES > end  # shorter than the others
            if not wanted:
                for j in range(first, first + LANES):
                    wanted |= greatest[band, j - begin] > least[j]
            if wanted:
                for j in range(first, min(first + LANES, end)):
                    if greatest[band, j - begin] > least[j]:
                        for i in rows:
                            if tile[i, j] > least[j]:
                                _insert(best, keys, j, tile[i, j], first_row + i)
                                least[j] = max(least[j], best[j, -1])


@njit(forceinline=True, fastmath=FINITE)
def _greatest_of_bands(tile, begin, end):
    """The maxima of columns begin to end over each band of rows."""
    rows = tile.shape[0]
    greatest = np.empty(((rows + BAND - 1) // BAND, end - begin), tile.dtype)
    for band in range(greatest.shape[0]):
        top, stop = greatest[band], min(band * BAND + BAND, rows)
        top[:] = tile[band * BAND, begin:end]
        for i in range(band * BAND + 1, stop):
            row = tile[i, begin:end]
            for j in range(top.size):
                top[j] = max(top[j], row[j])
    return greatest


@njit(forceinline=True, fastmath=FINITE)
def _raise_least(greatest, least, k):
    """Raises least [m] to just below the kth of the maxima [bands, m], where there are as many."""
    best = np.full((k, least.size), LOWEST, greatest.dtype)
    for band in range(greatest.shape[0]):
        value = greatest[band].copy()
        for at in range(k):
            here = best[at]
            for j in range(value.size):
                here[j], value[j] = max(here[j], value[j]), min(here[j], value[j])
    for j in range(least.size):
        least[j] = max(least[j], best[k - 1, j] - MARGIN)
