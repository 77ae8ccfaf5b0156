"""The version of the format that a store says it has, and whether this program reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import StoreError
from .arrays import group_document
from .atomic import read_json
from .remote.path import Place
from .schema import VERSION


def root_document(lists: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """What the `zarr.json` of a store of this version says.

    Args:
        lists: names of splits and of view sets, see `kept_lists.py`; empty ones are not named.
    """
    named = {kind: list(names) for kind, names in (lists or {}).items() if names}
    return group_document({"format": "strata", "version": VERSION, **named})


def check_version(root: Place) -> None:
    """Refuse a store of another version than this program's.

    Raises:
        StoreError: the store is older (the error names the command that turns it into this version) or newer.
    """
    version = stored_version(root)
    if version == VERSION:
        return
    older = type(version) is int and 0 <= version < VERSION
    raise StoreError(
        f"the store is of version {version}, this program reads version {VERSION}.",
        where=root,
        why="an older version of the program wrote it"
        if older
        else "a newer version of the program wrote it",
        fix=f"run `strata store migrate {root}`, which turns it into version {VERSION}"
        if older
        else "install a newer strata, or use the program that wrote it",
    )


def stored_version(root: Place) -> object:
    """The format version that a store says it has.

    Raises:
        StoreError: it is no store.
    """
    document = read_json(root / "zarr.json")
    attributes = document.get("attributes") if isinstance(document, dict) else None
    attributes = attributes if isinstance(attributes, dict) else {}
    if attributes.get("format") != "strata":
        raise StoreError(
            "this Zarr group is not a store of Strata.",
            where=root,
            why=f"its format attribute is {attributes.get('format')!r}",
            fix="give the path that `strata extract run store=` wrote to",
        )
    return attributes.get("version")
