"""Filters: which scenes and which views the words of `select` and `where` mean."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from .feature_store import FeatureStore
from .schema import ViewRow, ViewSet
from .set_runs import is_set
from .split_lists import split_scenes
from .view_sets import read_sets


def scene_ids(store: FeatureStore, scene: str | None, dataset: str | None, split: str | None) -> list[str]:
    """Ids of the scenes that fit, in natural order.

    Raises:
        SelectionError: there is no such split.
        SceneError: the split's file cannot be read.
    """
    named = None
    if split is not None:
        splits = {name: kept.scenes for name, kept in store.splits().items()}
        named = split_scenes(split, splits, store.root / "splits")
    return [
        scene_id
        for scene_id in store.catalog.scene_ids(scene)
        if (named is None or scene_id in named) and dataset in (None, scene_id.partition("/")[0])
    ]


class ViewFilter:
    """Whether a view of a scene id fits.

    Args:
        sets: keep the views of these sets, or of the sets in this file; None = all.
        views: keep these `<dataset>/<scene>/<frame>`; None = all.

    Raises:
        SetsError: the sets' file cannot be read.
    """

    def __init__(self, sets: Iterable[ViewSet] | str | Path | None, views: Iterable[str] | None) -> None:
        if isinstance(sets, str | Path):
            sets = read_sets(sets)
        self._sets = None if sets is None else list(sets)
        self._images = None if self._sets is None else {(s.scene, d) for s in self._sets for d in s.images}
        self._names = None if views is None else set(views)

    @property
    def restricts(self) -> bool:
        """Whether there is a view that does not fit."""
        return self._images is not None or self._names is not None

    def scene(self, scene_id: str) -> bool:
        """Whether some view of the scene may fit."""
        return all(scenes is None or scene_id in scenes for scenes in self._scenes)

    def whole(self, scene_id: str, views: Iterable[ViewRow]) -> bool:
        """Whether these views of a scene, in this order, are one of the sets."""
        return self._sets is None or any(is_set(one, scene_id, views) for one in self._sets)

    def view(self, scene_id: str, view: ViewRow) -> bool:
        """Whether the view fits."""
        images = {(scene_id, view.image_digest), (scene_id, view.source_digest)}
        return (self._images is None or not images.isdisjoint(self._images)) and (
            self._names is None or f"{scene_id}/{view.name}" in self._names
        )

    @cached_property
    def _scenes(self) -> tuple[set[str] | None, set[str] | None]:
        of_images = None if self._images is None else {scene for scene, _ in self._images}
        of_names = None if self._names is None else {name.rpartition("/")[0] for name in self._names}
        return of_images, of_names
