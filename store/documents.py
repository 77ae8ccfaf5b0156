"""The JSON documents of a store, each with a checksum of what it says.

Features are protected by the checksums of their chunks. A document carries one too: the attribute `crc32c`
of a `zarr.json`, the field `crc32c` of any other, 8 hex digits over the canonical JSON of the rest. Readers
need not look at it; `strata store verify` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .atomic import json_text, write_json
from .checksum import crc32c
from .key import canonical_json

SUM = "crc32c"
NO_SUM = "it carries no checksum"


def write_document(path: Path, document: dict[str, Any]) -> None:
    """A document with its checksum, whole or not there."""
    write_json(path, stamped(document))


def stamped(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its checksum, which lies last."""
    plain = unstamped(document)
    value = f"{crc32c(canonical_json(plain).encode()):08x}"
    if isinstance(plain.get("attributes"), dict):
        return {**plain, "attributes": {**plain["attributes"], SUM: value}}
    return {**plain, SUM: value}


def unstamped(document: dict[str, Any]) -> dict[str, Any]:
    """The document without its checksum."""
    plain = {name: value for name, value in document.items() if name != SUM}
    if isinstance(plain.get("attributes"), dict):
        inner = {name: value for name, value in plain["attributes"].items() if name != SUM}
        return {**plain, "attributes": inner}
    return plain


def document_fault(data: bytes, text: Callable[[Any], str] = json_text) -> str:
    """Why these are not the bytes of a document as it was written; empty when they are.

    Args:
        data: of the file.
        text: how documents of its kind are laid out.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            return "it is no JSON object"
        attributes = document.get("attributes")
        holder = attributes if isinstance(attributes, dict) else document
        if SUM not in holder:
            return NO_SUM
        if stamped(document) != document:
            return "its checksum is not that of what it says"
        return "" if text(document).encode() == data else "its bytes are not those that were written"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"it is no JSON: {error}"
