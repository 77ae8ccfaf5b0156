"""Reading of run folders: what a probe leaves behind.

A run folder holds `records.jsonl` (one `Record` a line) and, where the probe wrote them,
`sets.json` (view sets), `config.json` (`command`, `config`, `provenance`) and `pictures/`, with
captions in `pictures/index.json`: a list of `{"file", "caption", "scene", "encoder"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ProbeError
from .base import Record


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG of a run.

    Attributes:
        png: the file's bytes.
        caption, scene, encoder: from the index, else read off the file name.
    """

    png: bytes
    caption: str
    scene: str = ""
    encoder: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One folder that a probe wrote.

    Attributes:
        folder: as it was given.
        records: all lines of records.jsonl.
        command: the command line that makes the folder again; empty if it was not kept.
        config, provenance: the resolved options; versions, device, weights and whatever else.
        views: frame names by set digest (its first 16 digits, as records write it).
        pictures: PNGs in the order of the index, else of their names.
    """

    folder: str
    records: tuple[Record, ...]
    command: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    views: dict[str, tuple[str, ...]]
    pictures: tuple[Picture, ...]


def read_runs(folders: Iterable[str]) -> list[Run]:
    """The runs of these folders; one given twice is read once.

    Raises:
        ProbeError: a folder is no run, or a file in it is malformed.
    """
    distinct = {Path(folder).resolve(): folder for folder in folders}
    return [_read_run(folder) for folder in distinct.values()]


def _read_run(folder: str) -> Run:
    root = Path(folder)
    described = _json(root / "config.json", {})
    if not isinstance(described, dict):
        raise _malformed(root / "config.json", "an object is expected")
    return Run(
        folder=str(folder),
        records=tuple(_records(root / "records.jsonl")),
        command=str(described.get("command") or ""),
        config=described.get("config") or {},
        provenance=described.get("provenance") or {},
        views=_views(_json(root / "sets.json", [])),
        pictures=tuple(_pictures(root / "pictures")),
    )


def _records(path: Path) -> Iterator[Record]:
    if not path.is_file():
        raise ProbeError(
            "the folder holds no results.",
            where=path.parent,
            why="neither records.jsonl of a probe nor log.jsonl and run.json of a training are there",
            fix="give folders that a probe or a training wrote, such as runs/correspondence",
        )
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            yield _record(line, f"{path}, line {number}")


def _record(line: str, where: str) -> Record:
    try:
        record = Record.from_json(line)
    except (ValueError, TypeError) as error:
        why = str(error).replace("Record.__init__()", "the record")
    else:
        value = record.value
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            return record
        why = f"the value is {value!r}; a finite number or null is expected"
    raise ProbeError(
        "a line of the records is malformed.",
        where=where,
        why=why,
        fix="remove the line and run the probe again: it adds what is missing",
    )


def _json(path: Path, missing: Any) -> Any:
    if not path.is_file():
        return missing
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise _malformed(path, str(error)) from None


def _malformed(path: Path, why: str) -> ProbeError:
    return ProbeError(
        "a file of the run is malformed.",
        where=path,
        why=why,
        fix="run the probe again, or remove the file: only records.jsonl is needed",
    )


def _views(document: Any) -> dict[str, tuple[str, ...]]:
    """Members by digest, from a list of sets or a document that has one under `sets`."""
    rows = document.get("sets", []) if isinstance(document, dict) else document
    known = [row for row in rows if isinstance(row, dict) and "digest" in row]
    return {str(row["digest"])[:16]: tuple(map(str, row.get("members", ()))) for row in known}


def _pictures(folder: Path) -> Iterator[Picture]:
    index = _json(folder / "index.json", None)
    if index is None:
        index = [{"file": path.name} for path in sorted(folder.glob("*.png"))]
    for entry in index:
        # The name alone: an index must not make the page show files of other folders.
        path = folder / Path(str(entry.get("file", ""))).name
        if path.suffix == ".png" and path.is_file():
            yield Picture(
                png=path.read_bytes(),
                caption=str(entry.get("caption") or path.stem.replace(".", " · ")),
                scene=str(entry.get("scene") or ""),
                encoder=str(entry.get("encoder") or ""),
            )
