"""The encoders that come with Strata, one YAML file each in `configs/encoders`.

A preset says what an encoder is without importing torch: names, depths and licences are listed, and
extraction is planned, on machines that will never run a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ... import configs
from .base import EncoderInfo


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One file of `configs/encoders`.

    Attributes:
        info: what the encoder declares.
        family: `timm` (a model by its name), `vit` (timm's VisionTransformer from arguments), `hf` (a model
            of transformers), `mum`, `vggt`, `dinov2` (a patch embedding of VGGT) or `oracle`.
        model: the timm name, the arguments, the config with its repository or url, or the oracle's kind.
    """

    info: EncoderInfo
    family: str
    model: str | dict[str, Any]


@cache
def preset_names() -> tuple[str, ...]:
    """All preset names in alphabetical order."""
    return tuple(sorted(f.name[:-5] for f in _folder().iterdir() if f.name.endswith(".yaml")))


@cache
def load_preset(name: str) -> Preset:
    """The preset of that name, one of `preset_names()`."""
    return parse_preset(_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8"), name)


def parse_preset(text: str, name: str | None = None) -> Preset:
    """The preset of a YAML text.

    Args:
        name: of the encoder; None = the text has it.

    Raises:
        KeyError, TypeError: a field is missing, or not known.
    """
    from omegaconf import OmegaConf

    fields: Any = OmegaConf.to_container(OmegaConf.create(text))
    family, model = fields.pop("family"), fields.pop("model")
    for listed in ("mean", "std", "computes"):
        fields.update({listed: tuple(fields[listed])} if listed in fields else {})
    fields.update({"name": name} if name else {})
    info = EncoderInfo(**{**fields, "needs": frozenset(fields.get("needs", ()))})
    return Preset(info=info, family=family, model=model)


def _folder():
    return resources.files(configs).joinpath("encoders")
