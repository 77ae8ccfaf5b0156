"""`sets.json`: view sets with the options that made them, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SetsError, StrataError
from .atomic import write_atomic
from .documents import stamped
from .key import canonical_json, digest, readable
from .remote.path import Place
from .schema import ViewSet

FORMAT, VERSION = "strata-sets", 1


def sets_name(sampler: Mapping[str, Any]) -> str:
    """`walk-4x20@1f2e3d`, what a store calls the sets of these options; `mix-dense@...` those of a mix."""
    walk = f"walk-{sampler['views']}x{sampler['count']}" if {"views", "count"} <= set(sampler) else "sets"
    words = f"mix-{sampler['mix']}" if "mix" in sampler else walk
    return readable(words, digest(dict(sampler))[:6])


def write_sets(
    path: str | Path,
    sets: Sequence[ViewSet],
    *,
    sampler: Mapping[str, Any],
    skipped: Sequence[tuple[str, str]] = (),
    dropped_equal: int = 0,
) -> None:
    """Writes view sets; equal arguments give equal bytes, and a reader never sees half a file.

    Args:
        path: the file; its folder is made if it is missing.
        sets: in the order they are to be read back.
        sampler: the options that made the sets.
        skipped: (scene id, reason) of scenes without sets.
        dropped_equal: how many sets were dropped because they had been drawn before.

    Raises:
        StoreError: the file cannot be written.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "sampler": dict(sampler),
        "sets": [view_set.to_dict() for view_set in sets],
        "skipped": [{"scene": scene, "reason": reason} for scene, reason in skipped],
        "dropped_equal": dropped_equal,
    }
    write_atomic(Path(path), sets_text(stamped(document)).encode())


def read_sets(path: str | Place) -> list[ViewSet]:
    """The sets of a file, in its order.

    Raises:
        SetsError: the file is missing, is not a sets file, or a set in it is malformed.
    """
    document = _document(path)
    return [_view_set(path, number, value) for number, value in enumerate(document["sets"])]


def read_sampler(path: str | Path) -> dict[str, Any]:
    """The options that made the sets of a file.

    Raises:
        SetsError: the file is missing, or is not a sets file.
    """
    sampler = _document(path).get("sampler")
    if not isinstance(sampler, dict):
        raise _malformed(path, "it does not say what made the sets")
    return sampler


def _document(path: str | Place) -> dict[str, Any]:
    try:
        document = json.loads((Path(path) if isinstance(path, str) else path).read_bytes())
    except OSError as error:
        raise SetsError(
            f"the sets cannot be read: {error.strerror}.",
            where=path,
            fix="make them with `strata sets make scenes=... out=...`",
        ) from None
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"it is not JSON: {error}") from None
    kind = (document.get("format"), document.get("version")) if isinstance(document, dict) else (None, None)
    if kind != (FORMAT, VERSION) or not isinstance(document.get("sets"), list):
        raise _malformed(path, f"format {kind[0]}, version {kind[1]}; {FORMAT}, version {VERSION} is read")
    return document


def _view_set(path: str | Place, number: int, value: Any) -> ViewSet:
    try:
        return ViewSet.from_dict(value)
    except (AttributeError, KeyError, TypeError, ValueError, StrataError) as error:
        text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _malformed(path, f"set {number}: {text}") from None


def _malformed(path: str | Place, why: str) -> SetsError:
    return SetsError("this is not a file of view sets.", where=path, why=why, fix="make the sets again")


def sets_text(document: dict[str, Any]) -> str:
    """The text of a file of sets: one set a line, so that files can be compared by eye and by diff."""
    parts = []
    for name, value in document.items():
        if name == "sets" and value:
            body = "[\n" + ",\n".join(map(canonical_json, value)) + "\n]"
        else:
            body = canonical_json(value)
        parts.append(f'"{name}":{body}')
    return "{" + ",\n".join(parts) + "}\n"
