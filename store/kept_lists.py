"""Splits and view sets: the store's own document names them, for nothing else would miss one that is lost."""

from __future__ import annotations

from pathlib import Path

from .atomic import read_json
from .version import root_document
from .writer import write_if_changed

LISTS = ("splits", "sets")
"""Their folders."""

Names = dict[str, list[str]]
"""By folder, names of files without `.json`."""


def kept_lists(root: Path) -> Names:
    """Those that are there."""
    return {kind: sorted(path.stem for path in root.glob(f"{kind}/*.json")) for kind in LISTS}


def named_lists(root: Path) -> Names:
    """Those that the store's own document names; none where an older program wrote it, or it is damaged."""
    document = read_json(root / "zarr.json")
    attributes = document.get("attributes") if isinstance(document, dict) else None
    named = {kind: attributes.get(kind) if isinstance(attributes, dict) else None for kind in LISTS}
    return {kind: [str(n) for n in names] if isinstance(names, list) else [] for kind, names in named.items()}


def declare_lists(root: Path) -> None:
    """Name those that are there, beside those that are named already."""
    named, there = named_lists(root), kept_lists(root)
    both = {kind: sorted({*named[kind], *there[kind]}) for kind in LISTS}
    write_if_changed(root / "zarr.json", root_document(both))
