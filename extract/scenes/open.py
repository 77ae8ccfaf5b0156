"""From a path to a source of scenes, narrowed to a split where one is asked for."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError, SceneError, did_you_mean
from .folder import SUFFIXES, FolderSource, image_folders
from .inspection import Inspection, inspect
from .scene import Scene, SceneSource
from .split_lists import read_names
from .wai import WaiSource, wai_folders
from .wai_scene import META

SOURCES = ("auto", "wai", "folder")


def open_scenes(path: str | Path, source: str = "auto", split: str | None = None) -> SceneSource:
    """The scenes at a path.

    Args:
        path: a root (one folder per dataset), one dataset, one WAI scene, or a folder of images.
        source: `wai`, `folder`, or `auto` = WAI where a scene_meta.json is found.
        split: `test/eth3d`, or `test` for the test lists of all datasets, or a .json or .txt file
            of scene ids; None = all scenes.

    Raises:
        SceneError: the path or the split is none of these.
        ConfigError: `source` is unknown.
    """
    if source not in SOURCES:
        raise ConfigError(f"source={source} is not known.", where="source", fix=did_you_mean(source, SOURCES))
    folder = Path(path)
    if source == "auto":
        source = _recognised(folder)
    scenes = WaiSource(folder) if source == "wai" else FolderSource(folder)
    return scenes if split is None else Subset(scenes, _members(scenes, split))


class Subset(SceneSource):
    """Some scenes of a source, in the source's order.

    Args:
        source: where the scenes come from.
        keep: ids to keep.
    """

    def __init__(self, source: SceneSource, keep: set[str]) -> None:
        self.source, self.keep = source, keep

    def ids(self) -> list[str]:
        return [scene_id for scene_id in self.source.ids() if scene_id in self.keep]

    def scene(self, scene_id: str) -> Scene:
        return self.source.scene(scene_id)

    def inspect(self, scene_id: str) -> Inspection:
        return inspect(self.source, scene_id)

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self.source.splits()


def _recognised(folder: Path) -> str:
    if wai_folders(folder):
        return "wai"
    if image_folders(folder):
        return "folder"
    raise SceneError(
        f"there are no scenes at {folder}.",
        where=folder,
        why=f"looked for {META} there and up to two folders further down, and for images "
        f"({', '.join(SUFFIXES)}) there and in its folders"
        if folder.is_dir()
        else "there is no such folder",
        fix="give a root of dataset folders, a dataset, a WAI scene, or a folder of images",
    )


def _members(source: SceneSource, split: str) -> set[str]:
    known = set(source.ids())
    path = Path(split)
    if path.suffix in (".json", ".txt"):
        named = set(read_names(path))
        strange = sorted(named - known)
        if strange:
            raise SceneError(
                f"the split names {len(strange):,} scenes that are not there, first {strange[0]}.",
                where=path,
                fix=did_you_mean(strange[0], known),
            )
        return named
    splits = source.splits()
    lists = [ids for name, ids in splits.items() if name == split or name.partition("/")[0] == split]
    # A published list names the whole dataset; the copy at hand may have a part of it.
    members = known.intersection(*[set().union(*lists)])
    if not members:
        raise SceneError(
            f"the split {split} has no scenes here." if lists else f"there is no split {split}.",
            where="split",
            why="" if lists else "a split is a list in metadata/, or a .json or .txt file of scene ids",
            fix="choose another split" if lists else did_you_mean(split, _split_names(splits)),
        )
    return members


def _split_names(splits: dict[str, tuple[str, ...]]) -> set[str]:
    return {*splits, *(name.partition("/")[0] for name in splits)}
