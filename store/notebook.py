"""Stores and selections as people see them: a line, or small tables that need no style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import starmap
from typing import TYPE_CHECKING

from ..errors import counted
from .layers import layer_text

if TYPE_CHECKING:
    from .feature_store import FeatureStore
    from .selection import Selection

MOST_ROWS = 20


def selection_text(selection: Selection) -> str:
    """What is selected, on one line; a layer that is stored otherwise than in f16 says how."""
    return (
        f"Selection({selection.stored_key.name}, layers {_layers(selection)}, "
        f"{counted(len(selection.scenes), 'scene')}, {counted(len(selection), 'view')}, "
        f"{selection.nbytes / 1e6:,.1f} MB, fingerprint {selection.fingerprint})"
    )


def selection_html(selection: Selection) -> str:
    """What is selected, and a row for each scene."""
    facts = [
        ("key", selection.stored_key.name),
        ("layers", _layers(selection)),
        ("views", f"{len(selection):,} of {counted(len(selection.scenes), 'scene')}"),
        ("tokens", f"{selection.nbytes / 1e6:,.1f} MB"),
        ("fingerprint", selection.fingerprint),
        *([("left out", counted(len(selection.left_out), "view"))] if selection.left_out else []),
        *([("stale", ", ".join(selection.stale))] if selection.stale else []),
    ]
    rows = [
        (block.scene, f"{len(block):,}", "x".join(map(str, block.grid)), ", ".join(_stored(block.layers)))
        for block in selection.parts
    ]
    return f"<b>Selection</b>{_table((), facts)}{_table(('scene', 'views', 'tokens', 'stored as'), rows)}"


def store_html(store: FeatureStore) -> str:
    """Where it is, and a row for each key."""
    facts = [("store", str(store.root)), ("scenes", f"{len(store.catalog.rows):,}")]
    rows = [(key.name, ", ".join(key.layers), str(len(key.bundles))) for key in store.keys()]
    return f"<b>FeatureStore</b>{_table((), facts)}{_table(('key', 'layers', 'bundles'), rows)}"


def _layers(selection: Selection) -> str:
    return ", ".join(starmap(layer_text, selection.storages.items()))


def _stored(layers: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(layers.values()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    shown = [
        *rows[:MOST_ROWS],
        *([(f"and {len(rows) - MOST_ROWS:,} more",)] if len(rows) > MOST_ROWS else []),
    ]
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in shown
    )
    return f"<table>{f'<tr>{titles}</tr>' if head else ''}{body}</table>"
