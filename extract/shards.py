"""Reading packed shards: the index, and every view by its bytes in a tar, without parsing tars.

Opening reads `index.json` and the sizes of the shards; scenes and views are made when asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import SceneError, ShardError, did_you_mean, first_few
from ..store.key import digest
from ..store.record_fields import check_scene_id
from .pack_plan import INDEX_FORMAT
from .packed_folder import INDEX, PACK_AGAIN, not_shards
from .packed_scene import PackedScene, PackedView, Shard, damaged_index, naming_damage

__all__ = ["PackedScene", "PackedView", "Shard", "ShardIndex"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """The scenes of a finished pack.

        index = ShardIndex.open("shards")
        view = index.scene("eth3d/courtyard").views[0].view()

    Attributes:
        path: the folder.
        shards, scenes: in order.
        splits: named lists of scene ids.
    """

    path: Path
    shards: tuple[Shard, ...]
    scenes: tuple[PackedScene, ...]
    splits: dict[str, tuple[str, ...]]

    @classmethod
    def open(cls, path: str | Path) -> ShardIndex:
        """The index of the folder `path`.

        Raises:
            ShardError: packing was not finished, the index is malformed or of another version, or a
                shard is missing or not as long as it was.
        """
        folder = Path(path)
        document = _document(folder / INDEX)
        with naming_damage(folder):
            shards = tuple(_shard(folder, entry) for entry in document["shards"])
            scenes = tuple(_scene(entry, shards) for entry in document["scenes"])
            splits = {str(name): tuple(map(str, ids)) for name, ids in document["splits"].items()}
            if not shards:
                raise ValueError("it names no shards")
            if len({scene.id for scene in scenes}) != len(scenes):
                raise ValueError("two scenes share an id")
        _check_lengths(shards)
        return cls(path=folder, shards=shards, scenes=scenes, splits=splits)

    def __len__(self) -> int:
        return len(self.scenes)

    def __iter__(self) -> Iterator[PackedScene]:
        return iter(self.scenes)

    def scene(self, scene_id: str) -> PackedScene:
        """The scene of that id.

        Raises:
            SceneError: it was not packed.
        """
        try:
            return self._by_id[scene_id]
        except KeyError:
            raise SceneError(
                f"there is no scene {scene_id!r} in the shards.",
                where=self.path,
                fix=did_you_mean(scene_id, self._by_id),
            ) from None

    @cached_property
    def digest(self) -> str:
        """sha256 over every scene's id, digest and geometry digests."""
        return digest([[scene.id, scene.digest, list(scene.geometry_digests)] for scene in self.scenes])

    def verify(self) -> None:
        """Read every byte of every shard.

        Raises:
            ShardError: shards differ from what was packed; all of them are named.
        """
        damaged = [shard.path.name for shard in self.shards if _sha256(shard.path) != shard.sha256]
        if damaged:
            raise ShardError(
                f"{len(damaged):,} of {len(self.shards):,} shards are damaged: {first_few(damaged)}.",
                where=self.path,
                why="their sha256 is not the one in the index",
                fix=f"remove them, then {PACK_AGAIN}",
            )

    @cached_property
    def _by_id(self) -> dict[str, PackedScene]:
        return {scene.id: scene for scene in self.scenes}


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise not_shards(path.parent) from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_index(path.parent, error) from None
    found = {name: document.get(name) for name in INDEX_FORMAT} if isinstance(document, dict) else None
    if found != INDEX_FORMAT:
        raise ShardError(
            f"{path.name} is not an index of this version.",
            where=path,
            why=f"{INDEX_FORMAT} is expected, found {found}",
            fix="pack the scenes again with this version of strata",
        )
    return document


def _shard(folder: Path, entry: dict[str, Any]) -> Shard:
    if not re.fullmatch(r"shard-[0-9]{6,}\.tar", entry["name"]):
        raise ValueError(f"{entry['name']!r} is not the name of a shard")
    return Shard(path=folder / entry["name"], bytes=int(entry["bytes"]), sha256=str(entry["sha256"]))


def _scene(entry: dict[str, Any], shards: tuple[Shard, ...]) -> PackedScene:
    scale = entry["scene_scale_m"]
    if not isinstance(entry["views"], list) or not entry["views"]:
        raise ValueError(f"scene {entry['id']} has no views")
    return PackedScene(
        id=check_scene_id(entry["id"]),
        digest=str(entry["digest"]),
        scale_type=entry["scale_type"],
        rules=int(entry["rules"]),
        scene_scale_m=None if scale is None else float(scale),
        _entry=entry,
        _shards=shards,
    )


def _check_lengths(shards: tuple[Shard, ...]) -> None:
    found = {shard.path.name: (_length(shard.path), shard.bytes) for shard in shards}
    wrong = [
        f"{name} has {have:,} bytes" if have is not None else f"{name} is missing"
        for name, (have, want) in found.items()
        if have != want
    ]
    if wrong:
        raise ShardError(
            f"{len(wrong):,} of {len(shards):,} shards are not as they were packed.",
            where=shards[0].path.parent,
            why=f"{first_few(wrong)}; the index says otherwise",
            fix=f"copy the shards again, or {PACK_AGAIN}: it mends what is wrong",
        )


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
