"""Sources whose scenes are one folder each, called after it and the folder above."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from ...errors import SceneError, did_you_mean
from .inspection import Inspection
from .names import make_scene_id, natural_key
from .scene import Scene, SceneSource


class SceneFolders(SceneSource):
    """A scene `<dataset>/<scene>` is the folder `<scene>` in a folder `<dataset>`.

    Args:
        paths: each the folder of one scene, a dataset, or a root of datasets.

    Attributes:
        looked_for: what makes a folder a scene, for the error when there is none.
    """

    looked_for: str

    def __init__(self, *paths: str | Path) -> None:
        self.paths = tuple(Path(os.path.abspath(path)) for path in paths)

    @abstractmethod
    def find(self, path: Path) -> list[Path]:
        """The folders of the scenes there."""

    @abstractmethod
    def read(self, folder: Path, scene_id: str) -> Inspection:
        """The scene in that folder without its broken parts, and all their faults."""

    def ids(self) -> list[str]:
        return list(self.folders)

    def scene(self, scene_id: str) -> Scene:
        return self.inspect(scene_id).require()

    def inspect(self, scene_id: str) -> Inspection:
        """The scene without its broken parts, and all of its faults.

        Raises:
            SceneError: there is no scene of that id.
        """
        folder = self.folders.get(scene_id)
        if folder is None:
            raise SceneError(
                f"there is no scene {scene_id}.",
                where=self._where,
                fix=did_you_mean(scene_id, self.folders),
            )
        return self.read(folder, scene_id)

    @cached_property
    def folders(self) -> dict[str, Path]:
        """By scene id, in natural order.

        Raises:
            SceneError: there are none, or two of one id.
        """
        found: dict[str, Path] = {}
        for folder in (folder for path in self.paths for folder in self.find(path)):
            name = make_scene_id(folder.parent.name or "folder", folder.name, folder)
            if name in found:
                raise SceneError(
                    f"two scenes are called {name}.",
                    where=f"{found[name]} and {folder}",
                    why="an id is the name of the dataset's folder and that of the scene's",
                    fix="rename one of the folders",
                )
            found[name] = folder
        if not found:
            raise SceneError(
                "there are no scenes.",
                where=self._where,
                why=f"looked for {self.looked_for}",
                fix="give the folder of a scene, or a folder of such folders",
            )
        return {name: found[name] for name in sorted(found, key=natural_key)}

    @property
    def _where(self) -> str:
        return ", ".join(map(str, self.paths))


def folders_where(path: Path, is_scene: Callable[[Path], bool], levels: int) -> list[Path]:
    """The folder itself if it is a scene, else the scenes of the first of `levels` levels that has any."""
    here = [path] if path.is_dir() else []
    for _ in range(levels + 1):
        scenes = [folder for folder in here if is_scene(folder)]
        if scenes:
            return scenes
        here = [child for folder in here for child in _children(folder)]
    return []


def _children(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
