"""The datasets that come with Strata, one YAML file each in `configs/datasets`.

`options` are words for whatever command has them: `--preset eth3d` sets the token grid of an extraction
and the threshold of a walk alike. `mixes` say how many view sets of which split the published protocols
draw from the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class MixPart:
    """What a mix draws from one dataset: so many view sets of a split."""

    split: str
    sets: int


@dataclass(frozen=True, kw_only=True)
class DatasetPreset:
    """One file of `configs/datasets`.

    Attributes:
        name: of the dataset, as in the folder `<name>_wai`.
        options: words by name.
        mixes: by the mix, the dataset's part in it.
    """

    name: str
    options: dict[str, Any]
    mixes: dict[str, MixPart]


@cache
def dataset_names() -> tuple[str, ...]:
    """All dataset presets in alphabetical order."""
    return tuple(sorted(f.name[:-5] for f in _folder().iterdir() if f.name.endswith(".yaml")))


@cache
def load_dataset(name: str) -> DatasetPreset:
    """The preset of that dataset.

    Raises:
        ConfigError: there is none.
    """
    from omegaconf import OmegaConf

    if name not in dataset_names():
        raise ConfigError(
            f"there is no preset for the dataset {name!r}.",
            where=name,
            fix=did_you_mean(name, dataset_names()),
        )
    text = _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    fields: Any = OmegaConf.to_container(OmegaConf.create(text))
    mixes = {mix: MixPart(**part) for mix, part in fields["mixes"].items()}
    return DatasetPreset(name=name, options=fields["options"], mixes=mixes)


def load_mix(name: str) -> dict[str, MixPart]:
    """By dataset, the parts of a mix: `correspondence`, `dense`, `calibration`, `train`, `validation`.

    Raises:
        ConfigError: no dataset has a part in it.
    """
    presets = [load_dataset(dataset) for dataset in dataset_names()]
    parts = {preset.name: preset.mixes[name] for preset in presets if name in preset.mixes}
    if not parts:
        known = sorted({mix for preset in presets for mix in preset.mixes})
        raise ConfigError(f"there is no mix {name!r}.", where="mix", fix=did_you_mean(name, known))
    return parts


def _folder():
    return resources.files(__package__ or "").joinpath("datasets")
