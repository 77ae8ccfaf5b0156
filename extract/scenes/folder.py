"""A folder of images as one scene, or a folder of such folders as a dataset. Images only."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from ...errors import SceneError, did_you_mean
from .decode import exif_orientation
from .names import check_frame_name, make_scene_id, natural_key
from .scene import Blob, Scene, SceneSource, View

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class FolderSource(SceneSource):
    """Images without cameras or depth.

    A scene is a folder of images, its dataset the folder above. A frame is called by its file name
    without the suffix, or with it where two files of the folder would share a name. The EXIF
    orientation is recorded in the view and applied when the view is decoded.

    Args:
        path: a folder of images, or a folder of such folders.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))

    def ids(self) -> list[str]:
        return list(self._folders)

    def scene(self, scene_id: str) -> Scene:
        folder = self._folders.get(scene_id)
        if folder is None:
            raise SceneError(
                f"there is no scene {scene_id}.",
                where=self.path,
                fix=did_you_mean(scene_id, self._folders),
            )
        files = images_in(folder)
        stems = [file.stem for file in files]
        names = stems if len(set(stems)) == len(stems) else [file.name for file in files]
        return Scene(id=scene_id, views=tuple(map(_view, names, files)))

    @cached_property
    def _folders(self) -> dict[str, Path]:
        folders = image_folders(self.path)
        if not folders:
            raise SceneError(
                "there are no images.",
                where=self.path,
                why=f"no {', '.join(SUFFIXES)} in the folder or in its folders",
                fix="give a folder of images, or a folder of such folders",
            )
        return {
            make_scene_id(folder.parent.name or "folder", folder.name, folder): folder for folder in folders
        }


def image_folders(path: Path) -> list[Path]:
    """The folder itself if it has images, else those of its folders that have, in natural order."""
    if images_in(path):
        return [path]
    inside = (child for child in path.iterdir() if child.is_dir()) if path.is_dir() else ()
    return sorted((child for child in inside if images_in(child)), key=lambda child: natural_key(child.name))


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order; hidden files are none."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted((file for file in files if file.name[0] != "."), key=lambda file: natural_key(file.name))


def _view(name: str, file: Path) -> View:
    suffix = file.suffix.lower().lstrip(".")
    blob = Blob(suffix="jpg" if suffix == "jpeg" else suffix, path=file)
    return View(name=check_frame_name(name, file), image=blob, orientation=exif_orientation(blob))
