"""Mixes of datasets: how many samples of each an epoch draws, and in which order.

`75k @ blendedmvs + 25k @ unrealstereo4k` is such a mix; `train` is the one the dataset presets make together.

Shapes: N samples of an epoch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..configs.dataset_presets import MixPart, load_mix
from ..errors import ConfigError, TrainError, first_few
from ..store.key import digest

FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}
PART = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM]?)\s*@\s*([\w.-]+)(?::([\w.-]+))?")


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochOrder:
    """The samples of an epoch, in order.

    Attributes:
        datasets: names that `dataset` counts in.
        dataset: [N] int64.
        item: [N] int64, number of a scene (or of a set) in its dataset.
        repetition: [N] int64, how often the item came before in this epoch: another draw of the same scene.
    """

    datasets: tuple[str, ...]
    dataset: np.ndarray
    item: np.ndarray
    repetition: np.ndarray

    def __len__(self) -> int:
        return len(self.item)


def read_mix(text: str, split: str = "train") -> dict[str, MixPart]:
    """By dataset, how many samples of which split; `<count>[k|M] @ <dataset>[:<split>]`, joined by +.

    Args:
        text: parts, or the name of a mix of the presets.
        split: of parts that name none.

    Raises:
        ConfigError: this is no mix, or a dataset is named twice.
    """
    if "@" not in text:
        return load_mix(text.strip())
    parts: dict[str, MixPart] = {}
    for word in text.split("+"):
        found = PART.fullmatch(word.strip())
        samples = round(float(found[1]) * FACTORS[found[2].lower()]) if found else 0
        if found is None or samples < 1 or found[3] in parts:
            why = "the dataset is named twice" if samples else "a part is <count> @ <dataset>"
            raise ConfigError(
                f"{word.strip()!r} is no part of a mix.",
                where=f"mix={text}",
                why=why,
                fix="write mix='75k @ blendedmvs + 25k @ unrealstereo4k:train'",
            )
        parts[found[3]] = MixPart(split=found[4] or split, sets=samples)
    return parts


def epoch_order(mix: Mapping[str, int], items: Mapping[str, int], *, seed: int, epoch: int) -> EpochOrder:
    """Which item of which dataset comes when.

    Within a dataset every item comes once before any comes again, in a new order each time. The datasets are
    then shuffled together. What is drawn of a dataset depends on (seed, epoch) and on that dataset alone.

    Args:
        mix: samples by dataset.
        items: how many items each dataset has.

    Raises:
        TrainError: a dataset has no items.
    """
    empty = [name for name in mix if not items.get(name)]
    if empty:
        raise TrainError(
            f"{empty[0]} has nothing to draw from.",
            where=f"mix: {mix[empty[0]]:,} @ {empty[0]}",
            why=f"there are items of {first_few(name for name in items if items[name]) or 'no dataset'}",
            fix="leave the dataset out of the mix, or add its scenes",
        )
    drawn = [_drawn(name, mix[name], items[name], seed, epoch) for name in mix]
    shuffled = np.random.default_rng([seed, epoch]).permutation(sum(mix.values()))
    dataset = np.repeat(np.arange(len(mix)), [mix[name] for name in mix])
    return EpochOrder(
        datasets=tuple(mix),
        dataset=dataset[shuffled],
        item=np.concatenate([item for item, _ in drawn])[shuffled],
        repetition=np.concatenate([repetition for _, repetition in drawn])[shuffled],
    )


def _drawn(name: str, samples: int, items: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Items [samples] and their repetitions."""
    rng = np.random.default_rng([seed, epoch, int(digest(name)[:8], 16)])
    rounds = -(-samples // items)
    item = np.concatenate([rng.permutation(items) for _ in range(rounds)])[:samples]
    return item, np.repeat(np.arange(rounds), items)[:samples]
