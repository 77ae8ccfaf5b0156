"""`contents.json`: what a store has, for readers that cannot list it, such as those of a web server.

It names every file with its size, and holds the small documents (`zarr.json`, records of the catalog), so
that a reader asks once and not a thousand times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import StoreError
from .listing import Listing, RemoteFile

NAME, FORMAT, VERSION = "contents.json", "strata-contents", 1


def is_document(path: str) -> bool:
    """Whether a file is one of the small documents that readers want; views of bundles are not small."""
    record = path.startswith("catalog/") and path.endswith(".json") and not path.endswith(".views.json")
    return record or path.rpartition("/")[2] == "zarr.json"


def contents_bytes(sizes: Mapping[str, int], documents: Mapping[str, bytes]) -> bytes:
    """The bytes of `contents.json`.

    Args:
        sizes: of every file, by path in the store.
        documents: bytes of those for which `is_document` holds.
    """
    value = {
        "format": FORMAT,
        "version": VERSION,
        "files": dict(sorted(sizes.items())),
        "documents": {path: documents[path].decode() for path in sorted(documents)},
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parse_contents(data: bytes, where: object) -> tuple[Listing, dict[str, bytes]]:
    """The listing and the documents of `contents.json`.

    Raises:
        StoreError: it is damaged, or of another version.
    """
    try:
        value = json.loads(data)
        kind = value["format"], value["version"]
        if kind != (FORMAT, VERSION):
            raise ValueError(f"format {kind[0]}, version {kind[1]}")
        listing = Listing(RemoteFile(path=_inside(path), size=_size(n)) for path, n in value["files"].items())
        documents = {str(path): str(text).encode() for path, text in value["documents"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            "the contents of the store cannot be read.",
            where=where,
            why=f"{type(error).__name__}: {error}",
            fix=f"write them again with `strata store contents PATH` ({FORMAT} version {VERSION} is read)",
        ) from None
    return listing, documents


def _inside(path: str) -> str:
    """The path itself, if it cannot lead out of a store: copies are made under these names."""
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in path.split("/")):
        raise ValueError(f"{path!r} is no path inside a store")
    return path


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value
