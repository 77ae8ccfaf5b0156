"""One option: its default and what it does."""

from __future__ import annotations

from dataclasses import field
from typing import Any

MISSING = "???"
"""The default of an option that must be given."""


def option(default: Any, doc: str, *, changeable: bool = False) -> Any:
    """A field of a schema.

    Args:
        doc: what `--help` says of it.
        changeable: a training that is continued may have another value.
    """
    metadata = {"doc": doc, "changeable": changeable}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
