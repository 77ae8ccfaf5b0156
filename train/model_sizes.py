"""The sizes of a model that starts at random: those of a name of `configs/models`, or of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..configs.shipped import shipped, shipped_text
from ..errors import ConfigError, did_you_mean

SIZES = (".yaml", ".yml", ".json")


def model_sizes(model: str) -> dict[str, Any] | None:
    """The config that a name or file stands for; None = it names weights: a repository, a folder or a file.

    Raises:
        ConfigError: the file cannot be read, or nothing is called so.
    """
    path, names = Path(model).expanduser(), shipped("models")
    if model in names:
        return _parsed(shipped_text("models", model), model)
    if path.suffix in SIZES:
        try:
            return _parsed(path.read_text(encoding="utf-8"), model)
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(model, getattr(error, "strerror", None) or str(error)) from None
    if "/" not in model and not path.suffix and not path.exists():
        raise ConfigError(
            f"there is no model {model!r}.",
            where=f"model={model}",
            why="it is no folder here, and repositories of the hub are called owner/name",
            fix=did_you_mean(model, names),
        )
    return None


def _parsed(text: str, model: str) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(text))
    except YAMLError as error:
        raise _unreadable(model, " ".join(str(error).split())) from None
    if not isinstance(values, dict):
        raise _unreadable(model, "it is no list of `name: value`")
    return values


def _unreadable(model: str, why: str) -> ConfigError:
    return ConfigError(
        f"the model's sizes cannot be read: {why}.",
        where=f"model={model}",
        fix=f"give a YAML file that is there, or one of {', '.join(shipped('models'))}",
    )
