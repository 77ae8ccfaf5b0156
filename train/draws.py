"""What a model of several views can be trained on: sets of a list, or walks drawn anew over covisible views.

A draw names views; `online.py` and `stored.py` read them. Drawing is a pure function of the random numbers
that are given, so a run that was stopped draws what it would have drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..extract.sets import walk
from ..store.key import Size
from ..store.schema import ViewSet

TRIES = 16  # walks from views that see nothing end where they began


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Views of one scene, the first of which gives the frame.

    Attributes:
        scene: `<dataset>/<scene>`.
        names: frame names; two or more, unless one view is all that was asked for.
        grid: (R, C) tokens of all of them, where that is given with the views.
    """

    scene: str
    names: tuple[str, ...]
    grid: Size | None = None


class Draws(ABC):
    """Items by dataset, each of which gives a set of views."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Items of each dataset."""

    @abstractmethod
    def draw(self, dataset: str, item: int, views: int, rng: np.random.Generator) -> Draw:
        """At most `views` views of an item."""

    def kind(self, dataset: str, item: int) -> Hashable:
        """What items must have in common to share a batch."""
        return None


class SetDraws(Draws):
    """Sets of a list. Fewer views than a set has are its first, where the walk that made it began.

    Args:
        sets: each with two views or more.
    """

    def __init__(self, sets: Iterable[Draw]) -> None:
        self._by_dataset: dict[str, list[Draw]] = defaultdict(list)
        for one in sets:
            self._by_dataset[one.scene.partition("/")[0]].append(one)

    def counts(self) -> dict[str, int]:
        return {dataset: len(sets) for dataset, sets in self._by_dataset.items()}

    def draw(self, dataset: str, item: int, views: int, rng: np.random.Generator) -> Draw:
        one = self._by_dataset[dataset][item]
        return Draw(scene=one.scene, names=one.names[:views], grid=one.grid)

    def kind(self, dataset: str, item: int) -> Hashable:
        return self._by_dataset[dataset][item].grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Covisible:
    """The views of a scene that can be drawn.

    Attributes:
        scene: its id.
        names: N frame names.
        covisibility: [N, N] f32, the share of row's pixels that column sees.
    """

    scene: str
    names: tuple[str, ...]
    covisibility: np.ndarray

    def connects(self, threshold: float) -> bool:
        """Whether two views see each other."""
        mutual = (self.covisibility + self.covisibility.T) / 2
        own = np.diagonal(mutual)[:, None]
        others = ~np.eye(len(mutual), dtype=bool)
        return bool((mutual / (own + 1e-8) > threshold)[others].any())


class WalkDraws(Draws):
    """Scenes, of which every draw is a new walk.

    Args:
        scenes: what can be drawn; in each, two views see each other.
        threshold: by dataset, covisibility above which two views are neighbours.
        per_scene: draws of a scene in an epoch.
    """

    def __init__(self, scenes: Iterable[Covisible], threshold: Mapping[str, float], per_scene: int) -> None:
        self._threshold, self._per_scene = threshold, per_scene
        self._by_dataset: dict[str, list[Covisible]] = defaultdict(list)
        for scene in scenes:
            self._by_dataset[scene.scene.partition("/")[0]].append(scene)

    def counts(self) -> dict[str, int]:
        return {dataset: len(scenes) * self._per_scene for dataset, scenes in self._by_dataset.items()}

    def draw(self, dataset: str, item: int, views: int, rng: np.random.Generator) -> Draw:
        scenes = self._by_dataset[dataset]
        scene = scenes[item % len(scenes)]
        walked: list[int] = []
        for _ in range(TRIES):
            walked = walk(scene.covisibility, views, self._threshold[dataset], rng)
            if len(walked) > 1 or views == 1:
                break
        return Draw(scene=scene.scene, names=tuple(scene.names[view] for view in walked))


def placed_sets(
    sets: Iterable[ViewSet], grids: Mapping[tuple[str, str], Size | None]
) -> tuple[list[Draw], int]:
    """The sets that can be drawn, and how many cannot.

    Views that are not there drop out of a set. It needs two, and all on one token grid.

    Args:
        sets: as they were sampled.
        grids: by (scene id, frame name), the token grid of the views that are there; None = any.
    """
    placed, lost = [], 0
    for one in sets:
        names = tuple(name for name in dict.fromkeys(one.members) if (one.scene, name) in grids)
        of_set = {grids[one.scene, name] for name in names}
        if len(names) < 2 or len(of_set) > 1:
            lost += 1
        else:
            placed.append(Draw(scene=one.scene, names=names, grid=of_set.pop()))
    return placed, lost
