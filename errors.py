"""The exceptions of Strata. Each says what happened, where, why, and how to fix it.

A message reads

    SceneError: the depth file ends in the middle of a block.
      where   scenes/eth3d/courtyard/depth/DSC_0286.exr
      why     block 12 of 30 wants 8,112 bytes, 4,096 are left
      fix     copy the file again, or leave the scene out with `scenes check`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ClusterError",
    "ConfigError",
    "DiskFullError",
    "EncoderError",
    "LayerError",
    "ProbeError",
    "RemoteError",
    "SceneError",
    "SelectionError",
    "SetsError",
    "ShardError",
    "StaleError",
    "StoreError",
    "StoreMismatchError",
    "StrataError",
    "TrainError",
    "counted",
    "did_you_mean",
    "first_few",
]


class StrataError(Exception):
    """Base of every error that a user can cause and a user can mend.

    Args:
        what: one sentence that ends with a full stop and names the value received.
        where: the file, scene, option or store entry it is about.
        why: what was expected instead; for a mismatch the differing fields.
        fix: a command or an action that resolves it.
    """

    def __init__(self, what: str, *, where: object = "", why: str = "", fix: str = "") -> None:
        self.what, self.where, self.why, self.fix = what, str(where), why, fix
        super().__init__(what)

    def __str__(self) -> str:
        parts = (("where", self.where), ("why", self.why), ("fix", self.fix))
        lines = [f"  {name:<7} {_indented(text)}" for name, text in parts if text]
        return "\n".join([self.what, *lines])

    def __reduce__(self):
        # Keyword-only parts would be lost by the default pickling that crosses process borders.
        return _rebuild, (type(self), self.what, self.where, self.why, self.fix)

    def to_dict(self) -> dict[str, str]:
        """The four parts and the class name, as `failed.jsonl` keeps them."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
        }


class ConfigError(StrataError):
    """An option is unknown, of the wrong type or out of range."""


class ClusterError(StrataError):
    """Ray cannot be started or reached, or its nodes do not agree."""


class SceneError(StrataError):
    """A scene on disk is incomplete, inconsistent or unreadable."""


class SetsError(StrataError):
    """View sets are missing, malformed or made for other scenes."""


class ShardError(StrataError):
    """A packed shard or its index is incomplete or damaged."""


class EncoderError(StrataError):
    """An encoder is unknown, its weights do not fit, or its input does not."""


class LayerError(StrataError):
    """A layer name is outside the grammar or outside the encoder."""


class StoreError(StrataError):
    """The store is damaged, of another version, or not a store."""


class StoreMismatchError(StoreError):
    """What was asked for is stored, but made with other settings."""


class SelectionError(StoreError):
    """A selection is empty or ambiguous."""


class StaleError(SelectionError):
    """All that was selected was made from older images or another geometry."""


class DiskFullError(StoreError):
    """There is no room for what is to be written."""


class RemoteError(StoreError):
    """A store elsewhere cannot be reached, or refuses to be read."""


class ProbeError(StrataError):
    """A probe cannot run on what was selected."""


class TrainError(StrataError):
    """A training cannot start, go on or continue from its checkpoint."""


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence with the closest known names, or with the first few when none is close."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known names: {first_few(names)}" if names else "there are none"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`no keys`, `1 scene`, `2,000 scenes`; a plural that is not the noun with an s is given."""
    return f"{f'{number:,}' if number else 'no'} {noun if number == 1 else plural or f'{noun}s'}"


def first_few(items: Iterable[object], most: int = 5) -> str:
    """`a, b, c, d, e and 12 more`: every list in a message goes through here."""
    all_items = [str(item) for item in items]
    shown = ", ".join(all_items[:most])
    left = len(all_items) - most
    return f"{shown} and {left:,} more" if left > 0 else shown


def _indented(text: str) -> str:
    return text.replace("\n", "\n          ")


def _rebuild(kind: type[StrataError], what: str, where: str, why: str, fix: str) -> StrataError:
    return kind(what, where=where, why=why, fix=fix)
