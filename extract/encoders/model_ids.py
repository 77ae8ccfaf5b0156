"""Names of 3DFeatProbe's feature extractors: which of our encoders a `model_id` and its options mean.

`feature_extractor/<name>` works wherever the name of an encoder does. Nothing here imports torch.
"""

from __future__ import annotations

from ...errors import EncoderError, did_you_mean
from .presets import preset_names

PREFIX = "feature_extractor/"

# By extractor: what our presets of it begin with, and the one that is meant where no backbone is named.
_FAMILIES = {
    "dinov2": ("dinov2", "base"),
    "dinov3": ("dinov3", "base"),
    "clip": ("clip", "base_16"),
    "mae": ("mae", "base"),
    "mumvisiontransformer": ("mum", "large"),
    "mum": ("mum", "large"),
    "vggtfeatureextractor": ("vggt", ""),
    "vggt": ("vggt", ""),
}
# Parts of the names of repositories: `openai/clip-vit-base-patch16` is `base_16`.
_DROPPED = ("openai/clip-vit-", "clip-vit-", "vit-", "facebook/", "dinov2-", "patch")


def is_model_id(name: str) -> bool:
    """Whether it is the name of a feature extractor rather than of an encoder."""
    return name.startswith(PREFIX)


def encoder_of(
    model_id: str, *, backbone: str | None = None, use_timm: bool = False, with_registers: bool = False
) -> str:
    """The encoder that is meant.

    Args:
        model_id: `feature_extractor/dinov2` or `dinov2`, in any case.
        backbone: size, or the end of a repository's name (`large`, `vit-base-patch32`); None = the usual one.
        use_timm, with_registers: of DINOv2 alone: by timm instead of transformers; the model with registers.

    Raises:
        EncoderError: there is no such extractor or backbone.
    """
    extractor = model_id.lower().removeprefix(PREFIX)
    if extractor not in _FAMILIES:
        raise EncoderError(
            f"no feature extractor is called {model_id!r}.",
            where="model_id",
            why=f"there are {', '.join(_FAMILIES)}",
            fix=did_you_mean(extractor, _FAMILIES),
        )
    family, usual = _FAMILIES[extractor]
    size = _plain(backbone) if backbone else usual
    if family == "dinov2":
        return _dinov2(size, use_timm=use_timm, with_registers=with_registers)
    return _preset(family, size)


def _dinov2(size: str, *, use_timm: bool, with_registers: bool) -> str:
    timms = _preset("dinov2", f"{size}_reg" if with_registers else size)
    if use_timm:
        return timms
    registers = "-with-registers" if with_registers else ""
    repository = f"hf:facebook/dinov2{registers}-{size}"
    return f"{timms}_hf" if f"{timms}_hf" in preset_names() else repository


def _preset(family: str, size: str) -> str:
    name = f"{family}_{size}" if size else family
    if name not in preset_names():
        known = [n.partition("_")[2] for n in preset_names() if n.startswith(f"{family}_") and "_hf" not in n]
        raise EncoderError(
            f"{family} has no backbone {size!r}.",
            where="backbone",
            why=f"there are {', '.join(known)}" if known else f"no encoder of {family} is installed",
            fix=did_you_mean(size, known) if known else "`strata encoders ls` lists what there is",
        )
    return name


def _plain(backbone: str) -> str:
    name = backbone.lower()
    for part in _DROPPED:
        name = name.replace(part, "")
    return name.replace("-", "_")
