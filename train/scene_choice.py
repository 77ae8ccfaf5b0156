"""Which scenes are trained on, and which are held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError
from ..extract.scenes.mix import mix_scenes
from ..store.scene_glob import scene_fits
from ..store.split_lists import split_scenes

TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Scene ids, in the order of the data.

    Attributes:
        train, held_out: no scene is in both.
        notices: lines for people.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    notices: tuple[str, ...] = ()


def choose_scenes(
    ids: Sequence[str], splits: Mapping[str, Iterable[str]], config: TrainVGGTConfig, where: str
) -> Chosen:
    """Scenes by the words `split`, `scene`, `mix`, `val_split`, `val_scene`.

    Scenes of a test split are trained on only where a file or a glob names them; a mix does not name scenes.

    Args:
        ids: scenes that there are.
        splits: named lists that come with them.
        config: the options.
        where: what errors call the place.

    Raises:
        ConfigError: the test split is asked for.
        StrataError: a split or mix is not known.
    """
    if config.split is not None and config.split.partition("/")[0] == TEST:
        raise ConfigError(
            "scenes of the test split are not trained on.",
            where=f"split={config.split}",
            why="results on them would mean nothing",
            fix="give another split; a file of scene ids, or scene=, is taken at its word",
        )
    validates = config.val_split is not None or config.val_scene is not None
    held = _named(ids, splits, config.val_split, config.val_scene, where) if validates else set()
    asked = _named(ids, splits, config.split, config.scene, where)
    if config.mix is not None and "@" not in config.mix:
        asked &= mix_scenes(config.mix, ids, splits, where)
    named = config.split is not None or config.scene is not None
    tested = set() if named else asked & _tested(splits)
    asked -= tested
    notices = [f"{len(tested):,} scenes of test splits are left out"] if tested else []
    if named and asked & held:
        notices.append(f"{len(asked & held):,} scenes are held out, though asked for in training too")
    return Chosen(
        train=tuple(one for one in ids if one in asked and one not in held),
        held_out=tuple(one for one in ids if one in held),
        notices=tuple(notices),
    )


def _tested(splits: Mapping[str, Iterable[str]]) -> set[str]:
    return {scene for name, scenes in splits.items() if name.partition("/")[0] == TEST for scene in scenes}


def _named(
    ids: Sequence[str], splits: Mapping[str, Iterable[str]], split: str | None, glob: str | None, where: str
) -> set[str]:
    of_split = None if split is None else split_scenes(split, splits, where)
    return {one for one in ids if (of_split is None or one in of_split) and scene_fits(one, glob)}
