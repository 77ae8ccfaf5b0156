"""Models of transformers by name: what they declare, how they are built, how their weights get in.

`hf:<repository>` is a model of the hub, `hf:<folder>` one that `save_pretrained` wrote. A preset
holds its own config, so that random weights and weights from a file need no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from ...errors import EncoderError
from .base import EncoderInfo
from .hf_names import fill
from .hf_place import Place
from .hf_vit import HfViT
from .presets import Preset
from .weights import load_state, random_seed

PREFIX = "hf:"

Rgb = tuple[float, float, float]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A class of transformers that the adapter is for.

    Attributes:
        name: the class is `<name>Model`, its config `<name>Config`.
        normalisation: mean and std of models that come without a preprocessor config.
        settings: what the config says whatever the model's own says: no masking, no unused heads, and
            layer scales of random weights at 1, so that no block of a random floor is the identity.
        options: of the model's constructor.
    """

    name: str
    normalisation: tuple[Rgb, Rgb]
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "dinov2": Family(
        name="Dinov2", normalisation=_IMAGENET, settings={"use_mask_token": False, "layerscale_value": 1.0}
    ),
    "dinov2_with_registers": Family(
        name="Dinov2WithRegisters", normalisation=_IMAGENET, settings={"layerscale_value": 1.0}
    ),
    "dinov3_vit": Family(name="DINOv3ViT", normalisation=_IMAGENET, settings={"layerscale_value": 1.0}),
    "ijepa": Family(name="IJepa", normalisation=_IMAGENET),
    "clip_vision_model": Family(name="CLIPVision", normalisation=_CLIP),
    "vit_mae": Family(name="ViTMAE", normalisation=_IMAGENET, settings={"mask_ratio": 0.0}),
    "vit": Family(name="ViT", normalisation=_HALF, options={"add_pooling_layer": False}),
    "siglip_vision_model": Family(
        name="SiglipVision", normalisation=_HALF, settings={"vision_use_head": False}
    ),
}
_WITH_TEXT = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


def hf_info(name: str) -> EncoderInfo:
    """What the model `hf:<repository or folder>` declares, without its weights.

    Raises:
        EncoderError: there is no config in reach, or it is of a family without an adapter.
    """
    place = Place(name=name.removeprefix(PREFIX))
    return _info(place, place)


def create_hf(name: str, weights: str) -> HfViT:
    """The encoder `hf:<repository or folder>`, with its own weights (`hub`), `random:<seed>` or a path.

    With a folder of weights that has a config, nothing else is asked.

    Raises:
        EncoderError: config or weights are out of reach or do not fit.
    """
    place, given = Place(name=name.removeprefix(PREFIX)), Place(name=weights)
    source = given if given.has_config else place
    return _create(_values(source.config(), source), _info(place, source), place, weights)


def hf_preset(name: str, weights: str) -> Preset:
    """What a preset of `hf:<repository or folder>` would say; arguments as of `create_hf`.

    Raises:
        EncoderError: there is no config in reach, or it is of a family without an adapter.
    """
    place, given = Place(name=name.removeprefix(PREFIX)), Place(name=weights)
    source = given if given.has_config else place
    model = {**_values(source.config(), source), "repository": place.name}
    return Preset(info=_info(place, source), family="hf", model=model)


def create_hf_preset(model: Mapping[str, Any], info: EncoderInfo, weights: str) -> HfViT:
    """The encoder of a preset: `model` is its config, and the repository of its weights.

    Raises:
        EncoderError: the weights are out of reach or do not fit.
    """
    values, given = dict(model), Place(name=weights)
    place = Place(name=values.pop("repository"))
    if given.has_config:
        _check_same(values, _values(given.config(), given), given)
    return _create(values, info, place, weights)


def _create(values: Mapping[str, Any], info: EncoderInfo, place: Place, weights: str) -> HfViT:
    seed = random_seed(weights)
    if seed is not None:
        return HfViT(_build(values, seed=seed, where=info.name), info)
    given = place if weights == "hub" else Place(name=weights)
    path = given.weights() if given is place or given.folder else Path(weights)
    state = load_state(path)  # before the model, which takes a while to make
    model = _build(values, seed=0, where=info.name)
    fill(model, state, path)
    return HfViT(model, info).filled_from(path)


def _build(values: Mapping[str, Any], *, seed: int, where: str) -> Any:
    """The model with the library's own initialisation; the global random state is as before."""
    family, config = FAMILIES[values["model_type"]], _config(values, where)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return getattr(transformers, f"{family.name}Model")(config, **family.options).float()


def _config(values: Mapping[str, Any], where: object) -> Any:
    """The library's config object, with what the adapter needs.

    Raises:
        EncoderError: it is no config of the family, or of images and patches that are no squares.
    """
    family = FAMILIES[values["model_type"]]
    try:
        config: Any = getattr(transformers, f"{family.name}Config").from_dict({**values, **family.settings})
        why = ""
    except Exception as error:  # the library's validation raises types of its own
        config, why = None, str(error)
    sides = {name: getattr(config, name) for name in ("patch_size", "image_size")} if config else {}
    oblong = [f"{name} is {side}" for name, side in sides.items() if not isinstance(side, int)]
    if why or oblong:
        raise EncoderError(
            f"the config is of no {family.name}Model that Strata can run.",
            where=where,
            why=why or f"{' and '.join(oblong)}; one whole number is expected",
            fix="use a config that save_pretrained wrote, of a model for square images and patches",
        )
    return config


def _values(config: dict[str, Any], place: Place) -> dict[str, Any]:
    """The config of the vision model: of the whole file, or of its part for the vision tower.

    Raises:
        EncoderError: it is of a family without an adapter.
    """
    kind = str(config.get("model_type"))
    if kind in _WITH_TEXT:
        return {**config.get("vision_config", {}), "model_type": _WITH_TEXT[kind]}
    if kind not in FAMILIES:
        raise EncoderError(
            f"transformers' {kind} is no vision transformer that Strata can read layers from.",
            where=place.name,
            why=f"the adapter is for {', '.join(sorted({*FAMILIES, *_WITH_TEXT}))}",
            fix="use timm:<model name>, or add an encoder of your own: see extract/encoders/registry.py",
        )
    return config


def _info(place: Place, source: Place) -> EncoderInfo:
    """What the model called `place` declares, by the config and the preprocessing of `source`."""
    values = _values(source.config(), source)
    config = _config(values, source.name)
    mean, std = _normalisation(FAMILIES[values["model_type"]], source.processor())
    return EncoderInfo(
        name=f"{PREFIX}{place.title}",
        patch_size=config.patch_size,
        depth=config.num_hidden_layers,
        width=config.hidden_size,
        mean=mean,
        std=std,
        source="" if place.folder else f"https://huggingface.co/{place.name}",
    )


def _normalisation(family: Family, processor: Mapping[str, Any]) -> tuple[Rgb, Rgb]:
    """Mean and std as the model's own preprocessing has them, else the family's."""
    if processor.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = family.normalisation
    return _rgb("image_mean", processor, mean), _rgb("image_std", processor, std)


def _rgb(name: str, processor: Mapping[str, Any], default: Rgb) -> Rgb:
    try:
        red, green, blue = map(float, processor.get(name) or default)
    except (TypeError, ValueError) as error:
        raise EncoderError(
            f"{name}={processor[name]} is no colour.",
            where="preprocessor_config.json",
            why="three numbers are expected, of red, green and blue",
            fix="mend the file, or take it from the model's repository",
        ) from error
    return red, green, blue


def _check_same(preset: Mapping[str, Any], other: Mapping[str, Any], place: Place) -> None:
    """Nothing, if the folder's config says what the preset's says.

    Raises:
        EncoderError: it does not; the message lists the differences.
    """
    given = _config(other, place.name)
    differ = [
        f"{name}: the preset has {value}, the folder {getattr(given, name, None)}"
        for name, value in preset.items()
        if getattr(given, name, None) != value
    ]
    if differ:
        raise EncoderError(
            "the folder holds another model than the preset.",
            where=place.name,
            why="\n".join(differ),
            fix=f"use encoder=hf:{place.name}, which goes by the folder's own config",
        )
