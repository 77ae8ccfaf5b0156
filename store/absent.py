"""What was asked for and is not stored, told apart from what does not exist; and how to add it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import LayerError, SelectionError, did_you_mean
from .extract_command import extract_command
from .feature_store import FeatureStore
from .layers import check_layer, layers_told, resolve_layers
from .stored_key import StoredKey

_NUMBERED = re.compile(r"(block|frame|global)([0-9]+)")


def stored_layers_of(
    store: FeatureStore, stored: StoredKey, layers: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Names of the layers that were asked for; None = none was named.

    Raises:
        LayerError: one of them is no layer, the encoder has none such, or the store has it of no scene.
    """
    if layers is None:
        return None
    try:
        return resolve_layers(layers, stored.bundles.layer_names(), stored.depth)
    except LayerError as error:
        raise _absent(store, stored, (layers,) if isinstance(layers, str) else layers) or error from None


def no_such_sets(store: FeatureStore, stored: StoredKey, sets: str) -> SelectionError:
    """An encoder that sees whole sets was given others.

    Args:
        sets: the file that was asked for.
    """
    return SelectionError(
        f"the store has no features of {stored.key.encoder} for these view sets.",
        where=stored.name,
        why=f"{stored.key.encoder} sees whole sets, and other sets were extracted",
        fix=f"extract these: {extract_command(store, stored, sets=sets)}",
    )


def may_have(stored: StoredKey, layer: str) -> bool:
    """Whether there may be a layer of that name, stored or not; a share of the depth will do."""
    try:
        name = _named(layer, stored.layers, stored.depth)
    except LayerError:
        return False
    return name is not None and (name in stored.layers or _exists(name, stored))


def _absent(store: FeatureStore, stored: StoredKey, layers: Sequence[str]) -> LayerError | None:
    """The error for the first layer that is not stored; None where a share of the depth is the fault."""
    have = stored.layers
    for layer in layers:
        try:
            resolve_layers((layer,), have, stored.depth)
        except LayerError:
            return _absent_layer(store, stored, layer)
    return None


def _absent_layer(store: FeatureStore, stored: StoredKey, layer: str) -> LayerError | None:
    try:
        name = _named(layer, stored.layers, stored.depth)
    except LayerError as error:
        return LayerError(
            error.what, where=stored.name, why=error.why, fix=did_you_mean(layer, stored.layers)
        )
    if name is None:
        return None
    extracted = stored.key.derived is None and _exists(name, stored)
    return _not_stored(store, stored, name) if extracted else _no_such(stored, name)


def _named(layer: str, have: Sequence[str], depth: int) -> str | None:
    """A share of the depth as the layer that it means; None where it means none.

    Raises:
        LayerError: it is outside the grammar.
    """
    every = ("norm", *(f"{kind}{k}" for kind in _kinds(have) for k in range(depth)))
    try:
        return resolve_layers((layer,), every, depth)[0]
    except LayerError:
        return None if "/" in layer else check_layer(layer)


def _exists(name: str, stored: StoredKey) -> bool:
    """Whether an encoder of that depth and kind may have the layer: of taps only the encoder itself knows."""
    numbers = _NUMBERED.findall(name)
    if not stored.depth or "+" in name:
        return False
    return all(kind in _kinds(stored.layers) and int(k) < stored.depth for kind, k in numbers)


def _kinds(have: Sequence[str]) -> tuple[str, ...]:
    """What the numbered layers of an encoder are called, by those that are stored."""
    of_sets = any(name.startswith(("frame", "global")) for name in have)
    return ("frame", "global") if of_sets else ("block",)


def _not_stored(store: FeatureStore, stored: StoredKey, name: str) -> LayerError:
    return LayerError(
        f"the store has no layer {name!r} of {stored.key.encoder}.",
        where=stored.name,
        why=f"stored are {layers_told(stored.layers)}; {name} was not extracted",
        fix=f"select one of these, or add it: {extract_command(store, stored, layers=[name])}",
    )


def _no_such(stored: StoredKey, name: str) -> LayerError:
    blocks = f"it has {stored.depth} blocks, counted from 0; " if stored.depth else ""
    whose = "these derived features have" if stored.key.derived else f"{stored.key.encoder} has"
    return LayerError(
        f"{whose} no layer {name!r}.",
        where=stored.name,
        why=f"{blocks}stored are {layers_told(stored.layers)}",
        fix=did_you_mean(name, stored.layers),
    )
