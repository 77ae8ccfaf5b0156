"""A mix of datasets: the scenes that a published protocol takes of several, each by its own split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...configs.dataset_presets import MixPart, load_mix
from ...errors import SceneError
from .wai_rules import plain_name


@dataclass(frozen=True, kw_only=True)
class MixDataset:
    """The part that one dataset has in a mix.

    Attributes:
        preset: name in `configs/datasets`.
        part: the split, and how many view sets are drawn from it.
        folder: the dataset's name in scene ids, such as `eth3d_wai`.
        scenes: ids that are here, in order.
        listed: how many scenes the split's list names, here or not.
    """

    preset: str
    part: MixPart
    folder: str
    scenes: tuple[str, ...]
    listed: int

    @property
    def sets_per_scene(self) -> int:
        """So many that the whole split gives the sets of the mix."""
        return -(-self.part.sets // self.listed)


def mix_datasets(
    mix: str, ids: Iterable[str], splits: Mapping[str, Iterable[str]], where: object
) -> list[MixDataset]:
    """The datasets of a mix, in order of their presets.

    Args:
        mix: its name.
        ids: scenes that there are.
        splits: `<split>/<dataset>` -> scene ids.
        where: what errors call the place.

    Raises:
        ConfigError: there is no such mix.
        SceneError: datasets or their lists are missing; all of them are named.
    """
    here = list(ids)
    folders = dict.fromkeys(scene_id.partition("/")[0] for scene_id in here)
    found: list[MixDataset] = []
    missing: list[str] = []
    for preset, part in load_mix(mix).items():
        own = [folder for folder in folders if preset in (folder, plain_name(folder))]
        if not own:
            missing.append(f"{preset}: there is no dataset {preset} or {preset}_wai")
        for folder in own:
            listed = set(splits.get(f"{part.split}/{folder}", ()))
            scenes = tuple(scene_id for scene_id in here if scene_id in listed)
            if scenes:
                one = MixDataset(preset=preset, part=part, folder=folder, scenes=scenes, listed=len(listed))
                found.append(one)
            else:
                missing.append(f"{preset}: {_lacks(preset, part.split, len(listed))}")
    if missing:
        raise _not_complete(mix, missing, where)
    return found


def _lacks(preset: str, split: str, listed: int) -> str:
    if listed:
        return f"none of the {listed:,} scenes of its split {split} is here"
    return f"its split {split} is not there (metadata/{split}/{preset}_scene_list_{split}.npy, .json or .txt)"


def _not_complete(mix: str, missing: list[str], where: object) -> SceneError:
    return SceneError(
        f"the mix {mix} is not complete.",
        where=where,
        why="\n".join(missing),
        fix="bring what is missing, or take the datasets that are there one by one with split=",
    )


def mix_scenes(mix: str, ids: Iterable[str], splits: Mapping[str, Iterable[str]], where: object) -> set[str]:
    """The scenes of a mix; arguments and errors are those of `mix_datasets`."""
    return {scene_id for one in mix_datasets(mix, ids, splits, where) for scene_id in one.scenes}
