"""Scenes in the WAI layout: `<root>/<dataset>/<scene>/scene_meta.json`, lists in `<root>/metadata`."""

from __future__ import annotations

from pathlib import Path

from ...store.split_lists import SUFFIXES, read_names
from .inspection import Inspection
from .names import make_scene_id, natural_key
from .scene_folders import SceneFolders
from .wai_rules import plain_name
from .wai_scene import META, read_wai_scene

METADATA = "metadata"
CUSTOM = "custom_splits"
# A folder that has one of these is a scene, be it a broken one.
SCENE_MARKS = (META, "images", "images_distorted", "scene_meta_distorted.json")


class WaiSource(SceneFolders):
    """The scenes below one or several folders, each a root, a dataset or a scene.

    A root has one folder per dataset and perhaps `metadata/` beside them; the dataset is the name of
    the dataset's folder. Linked files and folders are followed.

    Args:
        paths: the folders.
    """

    looked_for = f"{META}, here or one or two folders further down"

    def find(self, path: Path) -> list[Path]:
        return wai_folders(path)

    def read(self, folder: Path, scene_id: str) -> Inspection:
        return read_wai_scene(folder, scene_id)

    def splits(self) -> dict[str, tuple[str, ...]]:
        """`<split>/<dataset>` -> scene ids, as the lists in `metadata/` name them.

        The scenes of a folder `mpsd_subset_wai` are found in lists of `mpsd_subset_wai`, else `mpsd`;
        for a subset, lists in `metadata/custom_splits` come before the others.

        Raises:
            SceneError: a list cannot be read or names what cannot be a scene.
        """
        here = {dataset for dataset, _, _ in (name.partition("/") for name in self.folders)}
        lists = {}
        for metadata in dict.fromkeys(_metadata(root) for root in self.paths):
            for split in _split_names(metadata):
                for dataset in sorted(here, key=natural_key):
                    path = _list_of(metadata, split, dataset)
                    if path:
                        names = [make_scene_id(dataset, name, path) for name in read_names(path)]
                        lists[f"{split}/{dataset}"] = tuple(names)
        return lists


def wai_folders(root: Path) -> list[Path]:
    """Scene folders of a root, a dataset or a scene; none where no `scene_meta.json` is found."""
    if (root / META).exists():
        return [root]
    for datasets in ([root], _children(root)):
        scenes = [scene for dataset in datasets for scene in _children(dataset) if _looks_like_scene(scene)]
        if any((scene / META).exists() for scene in scenes):
            return scenes
    return []


def _children(folder: Path) -> list[Path]:
    inside = folder.iterdir() if folder.is_dir() else ()
    return [path for path in inside if path.is_dir() and path.name[0] != "." and path.name != METADATA]


def _looks_like_scene(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in SCENE_MARKS)


def _metadata(root: Path) -> Path:
    """`metadata/` lies in the root, which is this folder, its parent or the one above."""
    depth = 2 if (root / META).exists() else 1 if any((c / META).exists() for c in _children(root)) else 0
    return [root, *root.parents][min(depth, len(root.parents))] / METADATA


def _split_names(metadata: Path) -> list[str]:
    folders = [*metadata.glob("*/"), *(metadata / CUSTOM).glob("*/")]
    return sorted({folder.name for folder in folders} - {CUSTOM}, key=natural_key)


def _list_of(metadata: Path, split: str, dataset: str) -> Path | None:
    custom, common = metadata / CUSTOM / split, metadata / split
    folders = (custom, common) if "_subset" in dataset else (common,)
    names = dict.fromkeys((dataset, plain_name(dataset)))
    stems = [folder / f"{name}_scene_list_{split}" for folder in folders for name in names]
    paths = (stem.with_name(stem.name + suffix) for stem in stems for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
