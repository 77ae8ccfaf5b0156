"""`strata store export`: stored features as files of other programs, one for each scene and token grid.

A file, or a folder, appears whole, so the same command again writes what is missing. `export.json`, written
first, says what is there; a folder that holds another export is refused.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, StoreError, counted, did_you_mean
from ...progress import Progress
from ...store.atomic import read_json, write_json
from ...store.block import Block
from ...store.feature_store import FeatureStore
from ...store.grid_features import checked_field
from ...store.selection import Selection
from .array_files import write_npz, write_safetensors
from .colmap_files import COLMAP_FIELDS, write_colmap
from .webdataset_files import write_webdataset

if TYPE_CHECKING:
    from rich.console import Console

    from ...configs.schema import ExportConfig

Write = Callable[[Path, Selection, tuple[str, ...]], int]
"""Write views of one scene and grid to a path; returns how many were left out."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """Attributes:
    suffix: of the file of a scene and grid; empty = a folder.
    write: writes it.
    fields: what it always holds; None = as asked.
    """

    suffix: str
    write: Write
    fields: tuple[str, ...] | None = None


FORMATS = {
    "npz": Format(suffix=".npz", write=write_npz),
    "safetensors": Format(suffix=".safetensors", write=write_safetensors),
    "webdataset": Format(suffix=".tar", write=write_webdataset),
    "colmap": Format(suffix="", write=write_colmap, fields=COLMAP_FIELDS),
}


def export(config: ExportConfig, console: Console) -> int:
    """The command; see the module.

    Raises:
        ConfigError: the format is unknown.
        StrataError: the selection is empty, a field is not stored, or the folder is taken.
    """
    if config.format not in FORMATS:
        fix = did_you_mean(config.format, FORMATS)
        raise ConfigError(f"format={config.format} is not known.", where="format", fix=fix)
    chosen, out = FORMATS[config.format], Path(config.out)
    fields = chosen.fields or tuple(map(checked_field, config.fields))
    selection = FeatureStore.open(config.store).select(
        config.encoder,
        layers=config.layers,
        scene=config.scene,
        dataset=config.dataset,
        split=config.split,
        sets=config.sets,
        storage=config.storage,
    )
    _take(out, _description(config, selection, fields), config.overwrite)
    parts = {_path(out, part, chosen.suffix): part for part in _parts(selection)}
    todo = {path: part for path, part in parts.items() if not path.exists()}
    if len(todo) < len(parts):
        _say(console, f"{len(parts) - len(todo):,} of {len(parts):,} were there already")
    left_out = 0
    with Progress(console, "export", sum(map(len, todo.values()))) as progress:
        for path, part in todo.items():
            left_out += chosen.write(path, part, fields)
            progress.advance(len(part))
    if left_out:
        _say(console, f"left out {counted(left_out, 'view')} without a camera")
    _say(console, f"{config.format} of {counted(len(parts), 'scene and grid', 'scenes and grids')} in {out}")
    return 0


def _parts(selection: Selection) -> list[Selection]:
    """By scene and grid: landscape and portrait views lie apart, a very long scene in several blocks."""
    together: dict[object, list[Block]] = defaultdict(list)
    for block in selection.parts:
        if len(block):
            together[block.scene, block.grid].append(block)
    return [replace(selection, parts=tuple(blocks)) for blocks in together.values()]


def _path(out: Path, part: Selection, suffix: str) -> Path:
    first = part.parts[0]
    return out / f"{first.scene}.{first.grid[0]}x{first.grid[1]}{suffix}"


def _description(config: ExportConfig, selection: Selection, fields: tuple[str, ...]) -> dict[str, Any]:
    return {
        "format": config.format,
        "fields": list(fields),
        "encoder": selection.stored_key.name,
        "key": selection.key.to_dict(),
        "layers": list(selection.layers),
        "selection": selection.fingerprint,
        "views": len(selection),
    }


def _take(out: Path, description: dict[str, Any], overwrite: bool) -> None:
    """Make the folder ours."""
    document = out / "export.json"
    if overwrite and document.exists():
        shutil.rmtree(out)
    if document.exists():
        there = read_json(document)
        differing = [name for name, value in description.items() if there.get(name) != value]
        if differing:
            raise StoreError(
                "the folder holds another export.",
                where=out,
                why=f"they differ in {', '.join(differing)}",
                fix="give another out=, or overwrite=true to remove it first",
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError("the folder holds something that is no export.", where=out, fix="give another out=")
    else:
        write_json(document, description)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
