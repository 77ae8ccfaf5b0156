"""`strata scenes ls`: one row per scene, broken ones included."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ...configs.schema import ScenesConfig
from ...errors import SceneError, first_few
from .decode import image_size
from .open import asked_scenes
from .scene import Scene, SceneSource

COLUMNS = ("views", "size", "depth", "poses", "masks", "covis", "splits or error")


def ls(config: ScenesConfig, console: Console) -> int:
    """Prints the table; returns 1 if a scene or a list of scenes is broken, else 0.

    Raises:
        SceneError: there are no scenes.
    """
    source = asked_scenes(config)
    faults: list[SceneError] = []
    splits = _splits(source, faults)
    table = Table(Column("scene", overflow="fold"), *COLUMNS, box=None, pad_edge=False)
    for scene_id in source.ids():
        named = ", ".join(name for name, ids in splits.items() if scene_id in ids)
        try:
            table.add_row(escape(scene_id), *_cells(source.scene(scene_id)), escape(named))
        except SceneError as error:
            faults.append(error)
            blanks = [""] * (len(COLUMNS) - 1)
            table.add_row(escape(scene_id), *blanks, f"[red]{escape(error.what)}[/red]")
    console.print(table)
    for fault in faults:
        console.print(f"\n{fault}", markup=False, highlight=False)
    return 1 if faults else 0


def _splits(source: SceneSource, faults: list[SceneError]) -> dict[str, tuple[str, ...]]:
    try:
        return source.splits()
    except SceneError as error:
        faults.append(error)
        return {}


def _cells(scene: Scene) -> list[str]:
    views = scene.views
    sizes = Counter(image_size(view.image, view.orientation) for view in views)
    counts = [
        sum(view.depth is not None for view in views),
        sum(view.K_px is not None and view.world_from_cam is not None for view in views),
        sum(bool(view.masks) for view in views),
    ]
    return [
        f"{len(views):,}",
        first_few((f"{width}x{height}" for (width, height), _ in sizes.most_common()), most=1),
        *(f"{count:,}" if count else "-" for count in counts),
        "-" if scene.covisibility is None else "yes",
    ]
