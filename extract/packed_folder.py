"""The folder of a pack: what it is known by, and what else may lie where one was expected."""

from __future__ import annotations

from pathlib import Path

from ..errors import ShardError, StrataError

INDEX = "index.json"
PACK_AGAIN = "run the same `strata pack` command again"


def check_packed(path: str | Path) -> None:
    """Nothing, if a finished pack is there.

    Raises:
        ShardError: it is not; the error says what is.
    """
    if not (Path(path) / INDEX).is_file():
        raise not_shards(Path(path))


def not_shards(path: Path) -> ShardError:
    """The error of a path without an index, by what is there instead."""
    if not path.is_dir():
        name = "name the folder that `strata pack` wrote"
        if path.exists():
            return ShardError("this is a file, and shards are a folder.", where=path, fix=name)
        fix = f"{name}, or make it: strata pack scenes=... out={path}"
        return ShardError("the folder of shards is not there.", where=path, fix=fix)
    if any(path.glob("shard-*")):
        return ShardError(
            "packing was not finished.",
            where=path,
            why=f"{INDEX} is written last, and it is not there",
            fix=f"{PACK_AGAIN}, it continues where it stopped; or name another folder",
        )
    if (path / "zarr.json").exists():
        return ShardError(
            "this is a store of features, not a folder of shards.",
            where=path,
            fix=f"write store={path}, and shards= the folder that `strata pack` wrote",
        )
    if _has_scenes(path):
        return ShardError(
            "these are scenes, not yet packed.",
            where=path,
            why="extraction reads packed shards",
            fix=f"strata pack scenes={path} out=shards, and then shards=shards",
        )
    return ShardError(
        "there are no shards in this folder.",
        where=path,
        why=f"`strata pack` writes {INDEX} and shard-000000.tar",
        fix=f"name the folder that `strata pack` wrote, or make it: strata pack scenes=... out={path}",
    )


def _has_scenes(path: Path) -> bool:
    from .scenes.open import DOORS

    try:
        return any(door.finds(path) for door in DOORS.values())
    except StrataError:
        return True  # scenes that are broken are scenes
