"""From plain values, as JSON or YAML hold them, to the config of a VGGT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from ....errors import ConfigError, did_you_mean
from .config import (
    CameraConfig,
    ConvConfig,
    DinoConfig,
    DPTConfig,
    EncoderConfig,
    RegisteredConfig,
    TrackConfig,
    VGGTConfig,
)

_ENCODERS: dict[str, type] = {"dinov2": DinoConfig, "conv": ConvConfig, "registered": RegisteredConfig}
_SECTIONS = {"camera_head": CameraConfig, "dpt": DPTConfig, "track_head": TrackConfig}
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
_MAY_BE_ZERO = ("num_register_tokens", "seed", "corr_radius", "intermediate_layer_idx", "mean")

Section = TypeVar("Section")


def parsed_config(values: Mapping[str, Any]) -> VGGTConfig:
    """`VGGTConfig.from_dict`."""
    values = dict(values)
    for head in ("camera", "track"):
        if values.pop(f"enable_{head}", True) is False:
            values[f"{head}_head"] = None
    for name, section in _SECTIONS.items():
        if values.get(name) is not None:
            values[name] = _parsed(section, values[name], name)
    if "encoder" in values:
        values["encoder"] = encoder = _encoder(values["encoder"])
        if isinstance(encoder, RegisteredConfig) and "patch_size" in values:
            values["encoder"] = replace(encoder, patch_size=values["patch_size"])
    return _parsed(VGGTConfig, values, "")


def _encoder(values: Any) -> EncoderConfig:
    if isinstance(values, DinoConfig | ConvConfig | RegisteredConfig):
        return values
    if isinstance(values, str):
        values = {"type": values} if values in _ENCODERS else {"name": values}
    if not isinstance(values, Mapping):
        raise _wrong("encoder", values, "a section or the name of a registered encoder")
    kind = values.get("type", "registered" if "name" in values else "dinov2")
    if kind not in _ENCODERS:
        raise ConfigError(
            f"no patch embedding is of type {kind!r}.",
            where="encoder.type",
            why=f"the types are {', '.join(_ENCODERS)}",
            fix="for an encoder of `strata encoders ls` write encoder={'name': NAME}",
        )
    return _parsed(_ENCODERS[kind], values, "encoder")


def _parsed(section: type[Section], values: Any, where: str) -> Section:
    """The dataclass, with every value of the type that its field has."""
    if isinstance(values, section):
        return values
    if not isinstance(values, Mapping):
        raise _wrong(where, values, "a section of names and values")
    known = {item.name: str(item.type) for item in fields(section)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in known:
            raise ConfigError(
                f"the config of VGGT has no {prefix}{name}.", where=where, fix=did_you_mean(str(name), known)
            )
    if "name" in known and "name" not in values:
        raise _wrong(f"{prefix}name", None, "the name of a registered encoder")
    return section(**{name: _typed(f"{prefix}{name}", known[name], value) for name, value in values.items()})


def _typed(name: str, kind: str, value: Any) -> Any:
    plain = kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    if plain.startswith("tuple["):
        inner = plain[len("tuple[") :].split(",")[0]
        if not isinstance(value, list | tuple):
            raise _wrong(name, value, f"a list of {inner}")
        return tuple(_typed(name, inner, item) for item in value)
    if plain not in _KINDS:
        return value
    if not isinstance(value, _KINDS[plain]) or (isinstance(value, bool) and plain != "bool"):
        raise _wrong(name, value, plain)
    may_be_zero = name.rpartition(".")[2] in _MAY_BE_ZERO
    if isinstance(value, int | float) and plain != "bool" and (value < 0 or (value == 0 and not may_be_zero)):
        raise _wrong(name, value, "a positive number")
    return value


def _wrong(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(
        f"{name} = {value!r} does not do.", where="the config of VGGT", why=f"{expected} is expected"
    )
