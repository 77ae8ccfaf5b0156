"""The options of a schema by name, and their types and values as text."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from .schema import MISSING

_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "value"}


class Option(NamedTuple):
    """One field of a schema: its type, its default and what it does."""

    type: Any
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        return isinstance(self.default, str) and self.default == MISSING

    @property
    def may_be_none(self) -> bool:
        return self.type is Any or type(None) in _members(self.type)

    @property
    def is_list(self) -> bool:
        return any(get_origin(member) is list for member in _members(self.type))

    @property
    def type_text(self) -> str:
        """`list of text or none`."""
        return _type_text(self.type)

    @property
    def default_text(self) -> str:
        """The default as it would be written, empty for a required option."""
        return "" if self.required else self.word_value(self.default)

    def word_value(self, value: Any) -> str:
        """What stands behind the `=` of a word that gives this value."""
        if value is None:
            return "none"
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, list | tuple):
            return str(value)
        items = ",".join(map(str, value))
        return items if items and self.is_list else f"[{items}]"


def options_of(schema: type, prefix: str = "") -> dict[str, Option]:
    """Options by dotted name: what must be given, then the schema's own, then those it shares."""
    hints = get_type_hints(schema)
    own = inspect.get_annotations(schema)

    def rank(field: dataclasses.Field) -> int:
        return 0 if field.default == MISSING else 1 if field.name in own else 2

    options: dict[str, Option] = {}
    for field in sorted(dataclasses.fields(schema), key=rank):
        name, kind = prefix + field.name, hints[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            options |= options_of(kind, f"{name}.")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        options[name] = Option(kind, default, field.metadata.get("doc", ""))
    return options


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _type_text(kind: Any) -> str:
    names = []
    for member in _members(kind):
        if get_origin(member) is list:
            names.append(f"list of {_type_text(get_args(member)[0])}")
        elif member is not type(None):
            names.append(_TYPE_NAMES.get(member, getattr(member, "__name__", str(member))))
    return " or ".join([*names, *(["none"] if type(None) in _members(kind) else [])])
