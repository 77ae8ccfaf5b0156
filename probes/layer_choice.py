"""Which of the layers that were asked for an encoder has in the store, and what adds the others."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LayerError, ProbeError
from ..store.absent import may_have
from ..store.extract_command import extract_command, recorded_commands

if TYPE_CHECKING:
    from ..store.feature_store import FeatureStore
    from ..store.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Layers that were asked for and that an encoder cannot be scored at.

    Attributes:
        encoder: `<encoder>@<key>`.
        errors: what the store says, by layer as it was asked for.
        addable: whether the encoder has these layers, so that another extraction adds them to the store.
    """

    encoder: str
    errors: Mapping[str, LayerError]
    addable: bool

    def __str__(self) -> str:
        how = "the store lacks it for all scenes or some" if self.addable else "no layer of this encoder"
        return f"{self.encoder} is not scored at {', '.join(self.errors)}: {how}"


def select_there(
    store: FeatureStore, name: str, layers: Sequence[str] | None, **where: Any
) -> tuple[Selection | None, list[Absent]]:
    """The layers that are stored, None if there are none of them; and what is absent.

    Args:
        name: `<encoder>@<key>`.
        layers: as they were asked for; None = all that are stored.
        where: other words of `store.select`.

    Raises:
        StrataError: nothing can be selected, whatever the layer.
    """
    try:
        return store.select(name, layers=layers, **where), []
    except LayerError:
        if layers is None:
            raise
    stored, there = store.stored_key(name), []
    errors: dict[bool, dict[str, LayerError]] = {}
    for layer in layers:
        try:
            store.select(name, layers=[layer], **where)
            there.append(layer)
        except LayerError as error:
            errors.setdefault(may_have(stored, layer), {})[layer] = error
    absent = [Absent(encoder=name, errors=found, addable=addable) for addable, found in errors.items()]
    return (store.select(name, layers=there, **where) if there else None), absent


def check_layers(
    layers: Sequence[str], store: FeatureStore, selections: Sequence[Selection], absent: Sequence[Absent]
) -> None:
    """Nothing, if some encoder has a layer, and every layer some encoder.

    Args:
        layers: as they were asked for.
        selections, absent: of all encoders.

    Raises:
        LayerError: no encoder has one of the layers, extracted or not.
        ProbeError: all of them are yet to be extracted.
    """
    encoders = {one.encoder for one in absent} | {selection.stored_key.name for selection in selections}
    for layer in layers:
        none = [one for one in absent if layer in one.errors and not one.addable]
        if none and len(none) == len(encoders):
            raise max(none, key=lambda one: store.stored_key(one.encoder).depth).errors[layer]
    if absent and not selections:
        raise ProbeError(
            "no layer that was asked for is stored.",
            where=store.root,
            why="\n".join(map(str, absent)),
            fix="extract it:\n" + "\n".join(what_adds(store, one) for one in absent if one.addable),
        )


def what_adds(store: FeatureStore, absent: Absent) -> str:
    """The commands that add the layers: those that extracted the others, with these layers; or what to do."""
    stored, layers = store.stored_key(absent.encoder), ",".join(absent.errors)
    if stored.key.derived is not None:
        return f"derive {layers} too: strata.materialise of a selection with these layers"
    if not isinstance(store.root, Path):
        return f"extract {layers} of {stored.key.encoder} where the store was made, and push it again"
    recorded = recorded_commands(store.root, stored)
    again = [[word for word in words if not word.startswith("layers=")] for words in recorded]
    commands = [shlex.join([*words, f"layers={layers}"]) for words in again]
    return "\n".join(dict.fromkeys(commands)) or extract_command(store, stored, layers=list(absent.errors))
