"""A folder of images as one scene, or a folder of such folders as a dataset. Images only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .decode import exif_orientation
from .inspection import Faults, Inspection
from .names import check_frame_name, names_of_files, natural_key
from .scene import Scene, View
from .scene_files import blob_of
from .scene_folders import SceneFolders, folders_where

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LOOKED_FOR = f"images ({', '.join(SUFFIXES)}) there and in its folders"


class FolderSource(SceneFolders):
    """Images without cameras or depth.

    A scene is a folder of images, its dataset the folder above. A frame is called by its file name
    without the suffix, or with it where two files of the folder would share a name. The EXIF
    orientation is recorded in the view and applied when the view is decoded.

    Args:
        path: a folder of images, or a folder of such folders.
    """

    looked_for = LOOKED_FOR

    def find(self, path: Path) -> list[Path]:
        return image_folders(path)

    def read(self, folder: Path, scene_id: str) -> Inspection:
        return inspect_images(images_in(folder), scene_id)


def inspect_images(files: Sequence[Path], scene_id: str) -> Inspection:
    """Image files as one scene, and the faults of those that are none."""
    faults = Faults()
    names = names_of_files([file.name for file in files])
    views = [faults.attempt(_view, name, file) for name, file in zip(names, files, strict=True)]
    scene = Scene(id=scene_id, views=tuple(view for view in views if view))
    return Inspection(scene=scene, faults=tuple(faults.found))


def image_folders(path: Path) -> list[Path]:
    """The folder itself if it has images, else those of its folders that have."""
    return folders_where(path, lambda folder: bool(images_in(folder)), levels=1)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order; hidden files are none."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted((file for file in files if file.name[0] != "."), key=lambda file: natural_key(file.name))


def _view(name: str, file: Path) -> View:
    blob = blob_of(file)
    return View(name=check_frame_name(name, file), image=blob, orientation=exif_orientation(blob))
