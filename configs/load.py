"""From the words of a command line to a typed config, and back to the command that makes it again.

A word is `name=value`, the name dotted where a config holds another one. The option's type decides how
the value is read, never its looks: `grid=aspect:37` stays text, `layers=1/4,last` becomes a list.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..errors import ConfigError, did_you_mean, first_few
from .dataset_presets import dataset_names, load_dataset
from .options import Option, options_of
from .shipped import shipped, shipped_text

Config = TypeVar("Config")


def load(schema: type[Config], words: list[str], preset: Path | None = None) -> Config:
    """An instance of `schema`: its defaults, then the preset's values, then the words; the last one wins.

    Args:
        schema: a dataclass of `schema/`.
        words: `name=value` each.
        preset: a YAML (or JSON) file with values by name; a name of `configs/training`; or that of a dataset
            of `configs/datasets`, which sets those of its options that the schema has.

    Raises:
        ConfigError: a word is malformed, a name unknown, a value of the wrong type, a required option
            missing, or the preset unreadable.
    """
    merged = OmegaConf.structured(schema)
    if preset is not None:
        merged = _merge(schema, merged, _preset(schema, preset), where=str(preset))
    for word in words:
        merged = _merge(schema, merged, _nested(schema, word), where=word)
    return _complete(schema, merged)


def resolved(config: Any) -> dict[str, Any]:
    """Every option with its value, as it is saved; `load` takes the file back as a preset."""
    return dataclasses.asdict(config)


def describe(schema: type) -> list[tuple[str, str, str, str]]:
    """(name, type, default, doc) of every option, for `--help`; a required one has an empty default."""
    return [
        (name, option.type_text, option.default_text, option.doc)
        for name, option in options_of(schema).items()
    ]


def words_of(config: Any) -> list[str]:
    """Every option as a word that `load` reads back."""
    return [f"{name}={option.word_value(value)}" for name, value, option in _values(config)]


def command_line(command: str, config: Any) -> str:
    """The shell command that gives this config again, with the options that differ from their defaults."""
    words = [
        f"{name}={option.word_value(value)}"
        for name, value, option in _values(config)
        if value != option.default
    ]
    return " ".join([command, *map(shlex.quote, words)])


def _values(config: Any) -> Iterator[tuple[str, Any, Option]]:
    for name, option in options_of(type(config)).items():
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        yield name, value, option


def _nested(schema: type, word: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}, the value read by the option's type."""
    name, equals, text = word.partition("=")
    options = options_of(schema)
    if not equals:
        likely = [name for name, option in options.items() if option.required] or list(options)
        raise ConfigError(
            f"{word!r} is not a word of the form name=value.",
            where="command line",
            why="every option is written with its name",
            fix=f"write {word}=..." if word in options else f"write {likely[0]}={word}, if that is meant",
        )
    if name not in options:
        raise _unknown(name, options, where=word)
    value: Any = _parse(name, text, options[name])
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _parse(name: str, text: str, option: Option) -> Any:
    if not text:
        raise ConfigError(
            f"{name}= has no value.",
            where=f"{name}=",
            why="an empty value is more often a slip of the shell than meant",
            fix=f"write {name}=none" if option.may_be_none else f"write {name}=..., or leave the word out",
        )
    if option.may_be_none and text.lower() in ("none", "null"):
        return None
    if option.is_list:
        return _items(text)
    if option.type is Any:
        return [_scalar(item) for item in _items(text)] if text.startswith("[") else _scalar(text)
    return text


def _items(text: str) -> list[str]:
    bracketed = re.fullmatch(r"\[(.*)\]", text, re.DOTALL)
    inner = bracketed[1] if bracketed else text
    return [item.strip().strip("'\"") for item in inner.split(",")] if inner.strip() else []


def _scalar(text: str) -> int | float | str:
    """A number where the whole text is one; YAML would also make numbers of 28:37 and 0o17."""
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return text


def _preset(schema: type, preset: Path) -> Any:
    name = str(preset)
    if not preset.suffix and not preset.exists() and name in shipped("training"):
        return OmegaConf.create(shipped_text("training", name))
    if preset.suffix or preset.exists() or name not in dataset_names():
        return _read(preset)
    options = options_of(schema)
    return {key: value for key, value in load_dataset(name).options.items() if key in options}


def _read(preset: Path) -> Any:
    try:
        values = OmegaConf.load(preset)
        why = "" if OmegaConf.is_dict(values) else "it is a list"
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        values, why = None, str(error)
    if why:
        raise ConfigError(
            f"the preset {preset.name} cannot be read.",
            where=preset,
            why=why,
            fix="give a YAML file with one `name: value` a line, or one of "
            + ", ".join([*dataset_names(), *shipped("training")]),
        )
    return values


def _merge(schema: type, base: Any, values: Any, where: str) -> Any:
    try:
        return OmegaConf.merge(base, values)
    except OmegaConfBaseException as error:
        name, options = error.full_key or "", options_of(schema)
        option = options.get(re.sub(r"\[.*", "", name))
        if option is None and name:
            raise _unknown(name, options, where) from None
        default = f"the default is {name}={option.default_text}; " if option and not option.required else ""
        raise ConfigError(
            f"{name or where} has a value that does not fit.",
            where=where,
            why=f"{option.type_text} is expected: {option.doc}" if option else _first_line(error),
            fix=f"{default}the command's --help lists the options",
        ) from None


def _complete(schema: type[Config], merged: Any) -> Config:
    """The merged values as an instance, `${name}` replaced and nothing required left out."""
    try:
        missing = sorted(OmegaConf.missing_keys(merged))
        if not missing:
            return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"the value of {error.full_key or 'an option'} cannot be resolved.",
            where=error.full_key or "",
            why=_first_line(error),
            fix="write the value itself; ${name} stands for the value of another option",
        ) from None
    options = options_of(schema)
    raise ConfigError(
        f"{first_few(missing)} must be given.",
        where="command line",
        why="\n".join(f"{name}: {options[name].doc}" for name in missing),
        fix="add " + " ".join(f"{name}=..." for name in missing),
    )


def _unknown(name: str, options: dict[str, Option], where: str) -> ConfigError:
    return ConfigError(
        f"there is no option {name!r}.",
        where=where,
        why="the command's --help lists its options",
        fix=did_you_mean(name, options),
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
