"""timm models by name: what they declare, how they are built, how their weights get in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, is_model, list_models
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from ...errors import EncoderError, did_you_mean
from .base import EncoderInfo
from .hub import hub_file
from .timm_naflex import TimmNaFlex
from .timm_sam import TimmSam
from .timm_vit import TimmViT
from .weights import check_state, load_state, random_seed

_FAMILIES = ("vision_transformer", "vision_transformer_sam", "naflexvit", "eva", "deit")
_ADAPTERS: dict[type, type[TimmViT]] = {
    VisionTransformer: TimmViT,
    Eva: TimmViT,
    NaFlexVit: TimmNaFlex,
    VisionTransformerSAM: TimmSam,
}

Model = str | dict[str, Any]
"""A timm name; a dict of one, `architecture`, and what differs; or arguments of timm's VisionTransformer."""


def timm_names() -> list[str]:
    """Names of the architectures that the adapter is for, without tags."""
    return list_models(module=_FAMILIES)


def timm_info(name: str) -> EncoderInfo | None:
    """What the timm model of that name declares, without its weights; None if timm has none.

    The name in the answer always carries the tag, because the tag decides the normalisation.

    Raises:
        EncoderError: it is no vision transformer, or the tag is unknown.
    """
    if not is_model(name):
        return None
    cfg = _pretrained_cfg(name)
    with torch.device("meta"):
        model = _build(name, seed=0)
    return EncoderInfo(
        name=f"{cfg.architecture}.{cfg.tag}" if cfg.tag else str(cfg.architecture or name),
        patch_size=_patches(model).feat_ratio(),
        depth=len(model.blocks),
        width=model.embed_dim,
        mean=cfg.mean,
        std=cfg.std,
        licence=cfg.license or "",
        source=f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else "",
    )


def create_timm(model: Model, info: EncoderInfo, weights: str) -> TimmViT:
    """The encoder with weights from the `hub`, from `random:<seed>` or from a path.

    Raises:
        EncoderError: the weights are out of reach or do not fit.
    """
    seed = random_seed(weights)
    built = _build(model, seed=seed or 0)
    if seed is not None:
        _open_layer_scales(built)
        return _adapter(built)(built, info)
    path = _hub_path(model, info) if weights == "hub" else Path(weights)
    _fill(built, load_state(path), path)
    return _adapter(built)(built, info).filled_from(path)


def _adapter(built: nn.Module) -> type[TimmViT]:
    return next(adapter for kind, adapter in _ADAPTERS.items() if isinstance(built, kind))


def _patches(built: Any) -> Any:
    """The module that cuts an image into patches."""
    return built.embeds if isinstance(built, NaFlexVit) else built.patch_embed


def _open_layer_scales(built: Any) -> None:
    """Layer scales of a random model at 1.

    DINOv2 and DINOv3 start them at 1e-5, with which every block is the identity and all layers of the
    random floor are the same.
    """
    for name, parameter in built.named_parameters():
        if name.endswith((".gamma", ".gamma_1", ".gamma_2")):
            torch.nn.init.ones_(parameter)


def _build(model: Model, *, seed: int) -> Any:
    """The model with timm's own initialisation; the global random state is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(model, dict) and "architecture" not in model:
            return VisionTransformer(**model, num_classes=0, dynamic_img_size=True)
        options: dict[str, Any] = {"architecture": model} if isinstance(model, str) else dict(model)
        name = options.pop("architecture")
        try:
            built = timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
        except TypeError:  # a family without the option
            built = timm.create_model(name, num_classes=0, **options)
    if not isinstance(built, tuple(_ADAPTERS)):
        raise EncoderError(
            f"timm's {name} is no vision transformer that Strata can read layers from.",
            where="encoder",
            why=f"the adapter is for timm's classes {', '.join(kind.__name__ for kind in _ADAPTERS)}",
            fix="add an encoder of your own: see extract/encoders/registry.py",
        )
    return built


def _pretrained_cfg(name: str) -> Any:
    try:
        return get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        tagged = list_models(f"{architecture}.*", pretrained=True)
        raise EncoderError(
            f"timm has no weights called {name}.",
            where="encoder",
            why=str(error),
            fix=did_you_mean(name, tagged) if tagged else f"write {architecture} without a tag",
        ) from error


def _hub_path(model: Model, info: EncoderInfo) -> Path:
    cfg = None if isinstance(model, dict) else _pretrained_cfg(model)
    if cfg is None or not cfg.hf_hub_id:
        raise EncoderError(
            f"{info.name} has no weights on the hub.",
            where="weights",
            why="nobody published any for this architecture",
            fix="give weights=random:0, or weights=PATH of a checkpoint",
        )
    return hub_file(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")


def _fill(model: Any, state: dict[str, Tensor], path: Path) -> None:
    """Load the weights; those in the authors' own format are renamed by timm's rules first."""
    expected = model.state_dict()
    if state.keys() != expected.keys():
        state = _without_classifier(_in_timm_names(model, state))
    check_state(state, expected, path)
    model.load_state_dict(state)


def _in_timm_names(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return rename(dict(state), model) if rename else state
    except (KeyError, RuntimeError, ValueError, AttributeError):
        return state  # not in any format that timm knows: the check that follows says what is missing


def _without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features do not pass the classifier, so its weights are neither needed nor part of the digest."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "head_dist."))}
