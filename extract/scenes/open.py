"""From a path to a source of scenes, narrowed to a split where one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...configs.schema import ScenesConfig
from ...errors import ConfigError, SceneError, SelectionError, counted, did_you_mean, first_few
from ...store.scene_glob import scene_fits
from ...store.split_lists import is_list_file, split_scenes
from . import colmap, folder, nerfstudio
from .inspection import Inspection, inspect
from .mix import mix_scenes
from .scene import Scene, SceneSource
from .wai import WaiSource, wai_folders
from .wai_scene import META


@dataclass(frozen=True, kw_only=True)
class Door:
    """One way in which scenes lie on disk.

    Attributes:
        source: opens a path.
        finds: the folders of scenes at a path, cheaply; none = the door does not lead there.
        looked_for: what it goes by, for the error.
    """

    source: Callable[[Path], SceneSource]
    finds: Callable[[Path], list[Path]]
    looked_for: str


# In the order in which `auto` tries them: what says more about its images comes first.
DOORS = {
    "wai": Door(
        source=WaiSource, finds=wai_folders, looked_for=f"{META} there and up to two folders further down"
    ),
    "nerfstudio": Door(
        source=nerfstudio.NerfstudioSource,
        finds=nerfstudio.nerfstudio_folders,
        looked_for=nerfstudio.LOOKED_FOR,
    ),
    "colmap": Door(source=colmap.ColmapSource, finds=colmap.colmap_folders, looked_for=colmap.LOOKED_FOR),
    "folder": Door(source=folder.FolderSource, finds=folder.image_folders, looked_for=folder.LOOKED_FOR),
}
SOURCES = ("auto", *DOORS)


def asked_scenes(config: ScenesConfig) -> SceneSource:
    """The scenes that the words of a command ask for; errors are those of `open_scenes`.

    Raises:
        SelectionError: none fits scene=.
    """
    source = open_scenes(config.scenes, config.source, config.split, config.mix)
    if config.scene is None:
        return source
    ids = source.ids()
    keep = {scene_id for scene_id in ids if scene_fits(scene_id, config.scene)}
    if not keep:
        raise SelectionError(
            f"no scene fits {config.scene!r}.",
            where=config.scenes,
            why=f"the other words leave {first_few(ids) or 'no scenes'}",
            fix=did_you_mean(config.scene, [*ids, *(scene_id.partition("/")[2] for scene_id in ids)]),
        )
    return Subset(source, keep)


def open_scenes(
    path: str | Path, source: str = "auto", split: str | None = None, mix: str | None = None
) -> SceneSource:
    """The scenes at a path.

    Args:
        path: a root (one folder per dataset), one dataset, or one scene.
        source: one of `DOORS`, or `auto` = the first of them that finds a scene.
        split: `test/eth3d`, or `test` for the test lists of all datasets, or a .json or .txt file
            of scene ids; None = all scenes.
        mix: the scenes of a mix of datasets, see `mix.py`; None = all scenes.

    Raises:
        SceneError: the path or the split is none of these, or the mix is not complete.
        ConfigError: `source` or `mix` is unknown.
    """
    if source not in SOURCES:
        raise ConfigError(f"source={source} is not known.", where="source", fix=did_you_mean(source, SOURCES))
    door = _recognised(Path(path)) if source == "auto" else DOORS[source]
    scenes = door.source(Path(path))
    if mix is not None:
        scenes = Subset(scenes, mix_scenes(mix, scenes.ids(), scenes.splits(), path))
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


def _recognised(path: Path) -> Door:
    for door in DOORS.values():
        if door.finds(path):
            return door
    looked_for = "; ".join(f"{name}: {door.looked_for}" for name, door in DOORS.items())
    raise SceneError(
        f"there are no scenes at {path}.",
        where=path,
        why=f"looked for {looked_for}" if path.is_dir() else "there is no such folder",
        fix="give a root of dataset folders, a dataset, a scene, or a folder of images",
    )


def _members(source: SceneSource, split: str) -> set[str]:
    known = set(source.ids())
    named = split_scenes(split, source.splits(), "split")
    strange = sorted(named - known)
    if is_list_file(split) and strange:
        raise SceneError(
            f"the split names {counted(len(strange), 'scene')} not there: {first_few(strange)}.",
            where=split,
            fix=did_you_mean(strange[0], known),
        )
    # A published list names the whole dataset; the copy at hand may have a part of it.
    members = known & named
    if not members:
        raise SceneError(f"the split {split} has no scenes here.", where="split", fix="choose another split")
    return members
