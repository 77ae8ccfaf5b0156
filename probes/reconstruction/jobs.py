"""What is to be reconstructed: scenes, view sets or a list of images, and where the results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.schema import ReconstructConfig
from ...errors import ConfigError, SceneError, SetsError, did_you_mean
from ...extract.scenes.folder import LOOKED_FOR, images_in, inspect_images
from ...extract.scenes.names import make_scene_id
from ...extract.scenes.open import open_scenes
from ...extract.scenes.scene import Scene, SceneSource, View
from ...store.key import COMPUTES
from ...store.schema import ViewSet
from ...store.view_sets import read_sets

WORDS = {"fit": ("crop", "pad"), "points": ("depth", "head"), "compute": ("auto", *COMPUTES)}
"""By option, what it may be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One reconstruction.

    Attributes:
        source, scene: where the scene is read from, and its id.
        folder: of the results.
        view_set: the views to take, in their order; None = all of the scene.
    """

    source: SceneSource
    scene: str
    folder: Path
    view_set: ViewSet | None = None

    @property
    def name(self) -> str:
        """`eth3d/courtyard`, with the set's digest where it is one of several."""
        return self.scene if self.view_set is None else f"{self.scene} {self.folder.name}"

    def views(self, most: int | None) -> tuple[View, ...]:
        """The views to reconstruct from, at most `most`, evenly chosen.

        Raises:
            SceneError: the scene is broken or empty.
            SetsError: the set is of other images.
        """
        scene = self.source.scene(self.scene)
        chosen = scene.views if self.view_set is None else members(scene, self.view_set)
        if not chosen:
            raise SceneError("the scene has no views.", where=self.scene, fix="add images, or leave it out")
        return evenly(chosen, most)


class Images(SceneSource):
    """Image files as one scene, called after the folder of the first."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        folder = files[0].resolve().parent
        self._id = make_scene_id(folder.parent.name or "folder", folder.name, folder)

    def ids(self) -> list[str]:
        return [self._id]

    def scene(self, scene_id: str) -> Scene:
        return inspect_images(self._files, scene_id).require()


def jobs_of(config: ReconstructConfig) -> list[Job]:
    """Every reconstruction that the words ask for, in order.

    Raises:
        ConfigError: not one of scenes= and images= is given, or a number is too small.
        SceneError: there are no scenes or images.
        SetsError: the sets cannot be read, or none is of these scenes.
    """
    _check_words(config)
    out = Path(config.out)
    if config.images is not None:
        images = Images(image_files(config.images))
        return [Job(source=images, scene=scene_id, folder=out) for scene_id in images.ids()]
    assert config.scenes is not None
    source = open_scenes(config.scenes, config.source, config.split)
    ids = source.ids()[: config.limit]
    if config.sets is None:
        return [Job(source=source, scene=scene_id, folder=out / scene_id) for scene_id in ids]
    return _set_jobs(source, ids, read_sets(config.sets), config.sets, out)


def image_files(words: Sequence[str]) -> list[Path]:
    """The image files of a folder, or those that are listed.

    Raises:
        SceneError: one is not there, or there are none.
    """
    files: list[Path] = []
    for path in map(Path, words):
        if not path.exists():
            raise SceneError(f"there is no {path}.", where=f"images={path}", fix="check the path")
        files += images_in(path) if path.is_dir() else [path]
    if not files:
        raise SceneError(
            "there are no images.",
            where=f"images={','.join(words)}",
            why=f"looked for {LOOKED_FOR.partition(' there')[0]}",
            fix="give a folder of images, or scenes= for a folder of scenes",
        )
    return files


def members(scene: Scene, view_set: ViewSet) -> tuple[View, ...]:
    """The views of a set, in its order.

    Raises:
        SetsError: a view is missing, or its image is another one.
    """
    by_name = {view.name: view for view in scene.views}
    for name, image in zip(view_set.members, view_set.images, strict=True):
        if name not in by_name or by_name[name].image_digest != image:
            raise SetsError(
                f"the view {name} of {scene.id} is "
                + ("another image than in the set." if name in by_name else "not there."),
                where=f"set {view_set.digest[:12]}",
                fix="make the sets again with `strata sets make`",
            )
    return tuple(by_name[name] for name in view_set.members)


def evenly(views: Sequence[View], most: int | None) -> tuple[View, ...]:
    """At most `most` of the views, first and last included."""
    if most is None or len(views) <= most:
        return tuple(views)
    return tuple(views[i] for i in np.linspace(0, len(views) - 1, most).round().astype(int))


def _set_jobs(
    source: SceneSource, ids: Sequence[str], sets: Sequence[ViewSet], path: str, out: Path
) -> list[Job]:
    found = [
        Job(source=source, scene=one.scene, folder=out / one.scene / one.digest[:12], view_set=one)
        for one in sets
        if one.scene in set(ids)
    ]
    if not found:
        named = {one.scene for one in sets}
        raise SetsError(
            "no set is of these scenes.",
            where=path,
            why=f"its first scene is {min(named, default='missing')}, here is {ids[0] if ids else 'none'}",
            fix=did_you_mean(min(named, default=""), ids),
        )
    return found


def _check_words(config: ReconstructConfig) -> None:
    for name, known in WORDS.items():
        value = getattr(config, name)
        if value not in known:
            raise ConfigError(f"{name}={value} is not known.", where=name, fix=did_you_mean(value, known))
    if (config.scenes is None) == (config.images is None):
        raise ConfigError(
            "either scenes= or images= says what to reconstruct.",
            where=f"scenes={config.scenes or 'none'}, images={','.join(config.images or ['none'])}",
            fix="write scenes=FOLDER for scenes, images=FOLDER for one folder of images",
        )
    if config.images is not None and config.sets is not None:
        raise ConfigError("sets= are of scenes.", where="sets", fix="write scenes=FOLDER, or leave sets= out")
    for name in ("views", "limit", "max_points"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} leaves nothing.", where=name, fix=f"write {name}=1 or more")
    if not 0 <= config.conf < 100:
        raise ConfigError(
            f"conf={config.conf} is no share of the pixels.",
            where="conf",
            why="it is the percentage that is dropped",
            fix="write conf=0 to keep every point, conf=50 for the surer half",
        )
