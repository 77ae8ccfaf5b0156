"""Feature keys that a store holds: reading them, and choosing the one that is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import (
    ConfigError,
    SelectionError,
    StoreError,
    StoreMismatchError,
    did_you_mean,
    first_few,
)
from .atomic import read_json
from .committed import CommittedLayers
from .key import FeatureKey, Preprocess, identity
from .layers import layer_order
from .layout import pixels_folder, points_folder
from .remote.path import Place

_OPTIONS = ("layers", "scene", "dataset", "split", "sets", "views", "storage", "version")


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A feature key that has something in the store.

    Attributes:
        key: the key itself.
        folder: its folder under `features/`.
        patch_size: pixels per token side of its encoder.
        depth: number of its blocks.
        bundles: by bundle id (and geometry, for oracles), the committed layers with their storage.
    """

    key: FeatureKey
    folder: str
    patch_size: int
    depth: int
    bundles: CommittedLayers

    @property
    def name(self) -> str:
        """`dinov2_base@8f31c2abcdef`."""
        return f"{self.key.encoder}@{self.key.id}"

    @property
    def stride(self) -> int:
        """Pixels between the centres of neighbouring tokens."""
        return self.key.stride or self.patch_size

    @property
    def pixels_folder(self) -> str:
        """Where the views lie as its encoder saw them, relative to the store."""
        return pixels_folder(self.key.preprocess, self.patch_size, self.key.stride)

    @property
    def points_folder(self) -> str:
        """Where its token points lie, relative to the store."""
        return points_folder(self.key.preprocess, self.patch_size, self.key.stride)

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that is committed somewhere, shallow to deep."""
        return tuple(sorted(self.bundles.layer_names(), key=layer_order))

    @cached_property
    def bundle_ids(self) -> frozenset[str]:
        """Of the bundles, whatever their geometry."""
        return frozenset(bundle for bundle, _ in self.bundles)


def read_key(folder: Place) -> StoredKey:
    """The key of a folder under `features/`, with what is committed of it.

    Raises:
        StoreError: its document is damaged.
    """
    document = read_json(folder / "zarr.json")
    try:
        attributes = document["attributes"]
        key = FeatureKey.from_dict(json.loads(attributes["feature_key"]))
        patch, depth = int(attributes["patch_size"]), int(attributes["depth"])
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        what = error.what if isinstance(error, ConfigError) else error
        raise _damaged_key(folder, f"{type(error).__name__}: {what}") from None
    if key.id != identity(folder.name):
        raise _damaged_key(folder, f"its fields hash to {key.id}")
    return StoredKey(
        key=key, folder=folder.name, patch_size=patch, depth=depth, bundles=CommittedLayers(folder)
    )


def choose_key(keys: Sequence[StoredKey], root: Place, encoder: str, fields: dict[str, Any]) -> StoredKey:
    """The one key that is meant; see `FeatureStore.stored_key`."""
    _check_fields(fields)
    named = _named(keys, encoder)
    if not named:
        raise SelectionError(
            f"the store has no features of {encoder!r}.",
            where=root,
            why=f"it has {first_few(k.name for k in keys) or 'none'}",
            fix=did_you_mean(encoder.partition("@")[0], [k.key.encoder for k in keys]),
        )
    fitting = [k for k in named if not _differing(k.key, fields)]
    if not fitting:
        raise StoreMismatchError(
            "these features were made with other settings.",
            where=f"{root}, {first_few(k.name for k in named)}",
            why="; ".join(min((_differing(k.key, fields) for k in named), key=len)),
            fix="extract with these settings, or select what is stored",
        )
    if len(fitting) > 1:
        raise SelectionError(
            f"{encoder!r} is stored under {len(fitting)} keys.",
            where=root,
            why="\n".join(_told_apart(fitting)),
            fix=f"name one, as in encoder={fitting[0].name}",
        )
    return fitting[0]


def _named(keys: Sequence[StoredKey], encoder: str) -> list[StoredKey]:
    name, _, prefix = encoder.partition("@")
    # A timm model without its tag (`vit_small_patch14_dinov2` for `....lvd142m`) is understood.
    exact = [k for k in keys if k.key.encoder == name]
    loose = exact or [k for k in keys if k.key.encoder.partition(".")[0] == name]
    return [k for k in loose if k.key.id.startswith(prefix)]


def _check_fields(fields: dict[str, Any]) -> None:
    known = {*FeatureKey.__dataclass_fields__, *Preprocess.__dataclass_fields__} - {"preprocess"}
    for name in fields:
        if name not in known:
            raise ConfigError(
                f"select has no option {name!r}, and a key no such field.",
                where=name,
                fix=did_you_mean(name, {*known, *_OPTIONS}),
            )


def _differing(key: FeatureKey, fields: dict[str, Any]) -> list[str]:
    have = {**key.to_dict(), **key.to_dict()["preprocess"]}
    asked = {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
    return [f"{n}: stored {have.get(n)}, asked {v}" for n, v in asked.items() if have.get(n) != v]


def _told_apart(keys: list[StoredKey]) -> list[str]:
    first = keys[0]
    rest = [f"{k.name} differs in {', '.join(k.key.differences(first.key))}" for k in keys[1:]]
    return [first.name, *rest]


def _damaged_key(folder: Place, why: str) -> StoreError:
    return StoreError(
        "a feature key's document is damaged.",
        where=folder / "zarr.json",
        why=why,
        fix="`strata store verify PATH --repair` drops it, and the same extraction writes it anew",
    )
