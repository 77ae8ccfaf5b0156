"""Scenes as COLMAP stores them: a sparse model beside the images it was made of.

    images/<name>                                       the images, under their names in the model
    sparse/0/, sparse/ or the folder itself             cameras, images, points3D as .bin or .txt
    depth/<name without suffix>.exr                     z-depth in the model's units, optional
    stereo/depth_maps/<name>.geometric.bin              the same, as `colmap patch_match_stereo` writes it

The scale of a model is arbitrary: `scale_type` is `colmap`. Covisibility is the share of a view's 3D
points that the other view sees too, where the model knows which image sees which point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from ...errors import SceneError
from .colmap_binary import read_binary
from .colmap_model import ColmapImage, ColmapModel, model_fault, shared_points
from .colmap_text import read_text
from .decode import image_size
from .depth_files import depth_blob
from .inspection import Faults, Inspection
from .names import check_frame_name, names_of_files, natural_key
from .scene import Blob, Scene, View
from .scene_files import SceneFiles, blob_of
from .scene_folders import SceneFolders, folders_where

MODEL_FOLDERS = ("sparse/0", "sparse", ".")
READERS = {".bin": read_binary, ".txt": read_text}
LOOKED_FOR = (
    "cameras and images as .bin or .txt in sparse/0, sparse or the folder itself, there and up to two "
    "folders further down"
)
# The matrix of so many views takes 1.6 GB; scenes of more have no covisibility.
MOST_COVISIBLE_VIEWS = 20_000


class ColmapSource(SceneFolders):
    """Folders with a COLMAP model, each a scene; views are in the natural order of their names.

    Args:
        path: such a folder, a dataset of them, or a root of datasets.
    """

    looked_for = LOOKED_FOR

    def find(self, path: Path) -> list[Path]:
        return colmap_folders(path)

    def read(self, folder: Path, scene_id: str) -> Inspection:
        faults = Faults()
        model = faults.attempt(_read_model, folder)
        if model is None:
            return Inspection(scene=None, faults=tuple(faults.found))
        reader = _Reader(folder=folder, model=model)
        images = sorted(model.images, key=lambda image: natural_key(image.name))
        names = names_of_files([image.name for image in images])
        faults.attempt(_check_names, images, folder)
        views = [_view(reader, image, name, faults) for image, name in zip(images, names, strict=True)]
        faults.attempt(reader.files.check_missing, scene_id)
        kept = [(image.id, view) for image, view in zip(images, views, strict=True) if view]
        scene = Scene(
            id=scene_id,
            views=tuple(view for _, view in kept),
            covisibility=_covisibility(model, [image_id for image_id, _ in kept]),
            covisibility_by="tracks",
            scale_type="colmap",
        )
        return Inspection(scene=scene, faults=tuple(faults.found))


def colmap_folders(path: Path) -> list[Path]:
    """The folder itself if it has a model, else those up to two folders further down."""
    return folders_where(path, lambda folder: _model_of(folder) is not None, levels=2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reader:
    """What the views of one scene are read with."""

    folder: Path
    model: ColmapModel

    @cached_property
    def files(self) -> SceneFiles:
        return SceneFiles(folder=self.folder / "images")


def _model_of(folder: Path) -> tuple[Path, str] | None:
    """Where the model is and the suffix of its files; the first of `MODEL_FOLDERS` that has one."""
    for inside in MODEL_FOLDERS:
        for suffix in READERS:
            if all((folder / inside / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return folder / inside, suffix
    return None


def _read_model(folder: Path) -> ColmapModel:
    found = _model_of(folder)
    if found is None:
        raise model_fault("there is no COLMAP model.", folder, f"looked for {LOOKED_FOR}")
    model = READERS[found[1]](found[0])
    if not model.images:
        raise SceneError("the COLMAP model has no images.", where=found[0], fix="leave the scene out")
    return model


def _view(reader: _Reader, image: ColmapImage, name: str, faults: Faults) -> View | None:
    where = f"{reader.folder}, image {image.name}"
    path = faults.attempt(reader.files.find, image.name, where)
    if path is None or faults.attempt(check_frame_name, name, where) is None:
        return None
    blob = blob_of(path)
    return View(
        name=name,
        image=blob,
        depth=_depth(reader.folder, image.name),
        K_px=faults.attempt(_intrinsics, reader.model, image, blob, where),
        world_from_cam=faults.attempt(image.world_from_cam, where),
    )


def _intrinsics(model: ColmapModel, image: ColmapImage, blob: Blob, where: str) -> np.ndarray:
    camera = model.cameras.get(image.camera_id)
    if camera is None:
        raise model_fault("an image has no camera.", where, f"there is no camera {image.camera_id}")
    size = image_size(blob)
    if size != (camera.width, camera.height):
        raise SceneError(
            "the camera is for images of another size.",
            where=where,
            why=f"camera {camera.id} is {camera.width} x {camera.height}, the image {size[0]} x {size[1]}",
            fix="give the images that the model was made of",
        )
    return camera.K_px(where)


def _depth(folder: Path, name: str) -> Blob | None:
    files = (
        folder / "depth" / PurePosixPath(name).with_suffix(".exr"),
        folder / "stereo" / "depth_maps" / f"{name}.geometric.bin",
    )
    return next((depth_blob(file) for file in files if file.is_file()), None)


def _covisibility(model: ColmapModel, image_ids: list[int]) -> np.ndarray | None:
    return shared_points(model, image_ids) if len(image_ids) <= MOST_COVISIBLE_VIEWS else None


def _check_names(images: list[ColmapImage], folder: Path) -> None:
    if len({image.name for image in images}) < len(images) or len({i.id for i in images}) < len(images):
        raise model_fault("images of the COLMAP model are there twice.", folder, "names and ids are unique")
