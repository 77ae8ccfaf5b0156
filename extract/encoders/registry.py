"""Encoders by name: presets and oracles, third parties' entry points, ViTs of timm and transformers.

An encoder of your own is one file in your own package:

    class Blur(Encoder):                                   # from strata.extract.encoders.base
        info = EncoderInfo(name="blur", patch_size=16, depth=0)
        def __init__(self, weights): ...                   # "hub", "random:0" or a path
        def width(self, layer): return 3
        def layers(self): return ("norm",)
        def forward(self, batch, layers): ...              # {"norm": FeatureMap(tokens=...)}
        def weights_digest(self): return state_digest({...})
        def to(self, device, dtype): return self

    [project.entry-points."strata.encoders"]               # in its pyproject.toml
    blur = "my_package.blur:Blur"

`strata.testing.check_encoder(Blur("hub"))` tells whether it keeps the contract. A name that Strata
itself has cannot be taken. Nothing here imports torch, timm, transformers or third parties until it must.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from ...errors import EncoderError, did_you_mean
from .base import Encoder, EncoderInfo
from .exported import check_folder, exported_weights, is_exported, load_exported
from .model_ids import encoder_of, is_model_id
from .presets import Preset, load_preset, preset_names

GROUP = "strata.encoders"

# By family of a preset, what makes the encoder of (model, info, weights); imported when it is asked for.
_FAMILIES = {
    "timm": ".timm_models:create_timm",
    "vit": ".timm_models:create_timm",
    "hf": ".hf_models:create_hf_preset",
    "mum": ".mum:create_mum",
    "vggt": ".vggt.encoder:create_vggt",
    "dinov2": ".vggt.dino_encoder:create_dino",
}
_TIMM, _HF = "timm:", "hf:"


def encoder_names() -> list[str]:
    """Presets, oracles and entry points in alphabetical order.

    Names of timm and of the Hugging Face hub work too, but are not listed.
    """
    return sorted({*preset_names(), *_entry_points()})


def describe(name: str) -> EncoderInfo:
    """What an encoder declares, without loading its weights.

    Raises:
        EncoderError: the name is unknown, or its package does not import.
    """
    if is_model_id(name):
        return describe(encoder_of(name))
    if name in preset_names():
        return load_preset(name).info
    if name in _entry_points():
        return _declared(name, _factory(name))
    if is_exported(name):
        return load_exported(name).info
    if name.startswith(_HF):
        from .hf_models import hf_info

        return hf_info(name)
    return _timm_info(name)


def create(name: str, weights: str = "hub", stride: int | None = None) -> Encoder:
    """The encoder, on the CPU in float32.

    Args:
        name: one of `encoder_names()`, a timm name with or without tag and `timm:` before it, `hf:`
            and a repository of the Hugging Face hub or a folder that `save_pretrained` wrote, or the folder
            of an encoder that a training exported; `hub` are then the weights in it. Names of 3DFeatProbe,
            `feature_extractor/dinov2`, mean the encoders of `model_ids.py`.
        weights: `hub`, `random:<seed>` (the same seed gives the same bytes), or the path of a
            `.safetensors` or torch checkpoint, for models of transformers also of their folder.
            Oracles have none.
        stride: pixels between neighbouring tokens, for patches that overlap; None = a patch.

    Raises:
        EncoderError: the name is unknown, the weights are out of reach or do not fit, or the encoder
            takes no such stride.
    """
    encoder = _create(encoder_of(name) if is_model_id(name) else name, weights)
    return encoder if stride is None else encoder.overlap(stride)


def _create(name: str, weights: str) -> Encoder:
    if name in preset_names():
        return _create_preset(load_preset(name), weights)
    if name in _entry_points():
        return _create_third_party(name, weights)
    if is_exported(name):
        return _create_preset(load_exported(name), exported_weights(name, weights))
    if name.startswith(_HF):
        from .hf_models import create_hf

        return create_hf(name, weights)
    info = _timm_info(name)
    from .timm_models import create_timm

    return create_timm(info.name, info, weights)


def origin(name: str, weights: str) -> Preset | None:
    """The preset of an encoder, or what one would say of it; None for one of somebody else's package.

    Args:
        name, weights: as `create` takes them.

    Raises:
        EncoderError: the name is unknown.
    """
    if name in preset_names():
        return load_preset(name)
    if name in _entry_points():
        return None
    if is_exported(name):
        return load_exported(name)
    if name.startswith(_HF):
        from .hf_models import hf_preset

        return hf_preset(name, weights)
    info = _timm_info(name)
    return Preset(info=info, family="timm", model=info.name)


def _create_preset(preset: Preset, weights: str) -> Encoder:
    if preset.family == "oracle":
        return _create_oracle(preset, weights)
    module, _, function = _FAMILIES[preset.family].partition(":")
    return getattr(import_module(module, __package__), function)(preset.model, preset.info, weights)


def _create_oracle(preset: Preset, weights: str) -> Encoder:
    from .oracles import ORACLES
    from .weights import random_seed

    if weights != "hub" and random_seed(weights) is None:
        raise EncoderError(
            f"{preset.info.name} has no weights to load.",
            where=f"weights={weights}",
            why="an oracle computes its features from the geometry or the image alone",
            fix="leave weights= out",
        )
    return ORACLES[str(preset.model)](preset.info)


def _create_third_party(name: str, weights: str) -> Encoder:
    encoder = _factory(name)(weights)
    info = getattr(encoder, "info", None)
    if not isinstance(info, EncoderInfo) or info.name != name:
        raise EncoderError(
            f"the encoder registered as {name} calls itself {getattr(info, 'name', 'nothing')}.",
            where=f"entry point {GROUP}",
            why="features are stored under the encoder's own name, and found by the registered one",
            fix=f"set its `info` to EncoderInfo(name={name!r}, ...)",
        )
    return encoder


def _declared(name: str, factory: object) -> EncoderInfo:
    info = getattr(factory, "info", None)
    if not isinstance(info, EncoderInfo):
        raise EncoderError(
            f"{name} does not say what it is before it is created.",
            where=f"entry point {GROUP}",
            why="its class, or the function that creates it, has no attribute `info`",
            fix="set `info = EncoderInfo(...)` on the class",
        )
    return info


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _factory(name: str) -> Callable[[str], Encoder]:
    point = _entry_points()[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise EncoderError(
            f"the encoder {name} does not import.",
            where=f"{point.value} (entry point {GROUP})",
            why=f"{type(error).__name__}: {error}",
            fix="install what it needs, or uninstall the package that registers it",
        ) from error


def _timm_info(name: str) -> EncoderInfo:
    from .timm_models import timm_info, timm_names

    info = timm_info(name.removeprefix(_TIMM))
    if info is None:
        check_folder(name)
        known = timm_names() if name.startswith(_TIMM) else [*encoder_names(), *timm_names()]
        raise EncoderError(
            f"no encoder is called {name}.",
            where="encoder",
            why="it is neither a preset, an oracle, an installed entry point nor a model of timm;\n"
            "models of transformers are called hf:<repository or folder>",
            fix=did_you_mean(name.removeprefix(_TIMM), known),
        )
    return info
