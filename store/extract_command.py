"""The command that extracts more under a stored key: its words are what the features say of themselves."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..configs.load import command_line
from ..configs.schema import ExtractConfig
from ..errors import StoreError
from .atomic import read_json
from .feature_store import FeatureStore
from .group import StoredGroup
from .stored_key import StoredKey

ELSEWHERE = "..."
"""What a store does not know, and the reader of the command does."""


def extract_command(store: FeatureStore, stored: StoredKey, **words: Any) -> str:
    """`strata extract run shards=... store=feats.zarr encoder=dinov2_base layers=block7 compute=float32`.

    Args:
        store: where it is asked for; one elsewhere is extracted into where it was made.
        stored: the key that the features are to have.
        words: what is asked for beyond the key, such as layers or sets.
    """
    key, pre = stored.key, stored.key.preprocess
    config = ExtractConfig(
        shards=_shards(store, stored),
        store=str(store.root) if isinstance(store.root, Path) else ELSEWHERE,
        encoder=key.encoder,
        weights=_weights(made_by(store, stored).get("weights", "hub")),
        fit=pre.fit,
        grid=list(pre.grid) if isinstance(pre.grid, tuple) else pre.grid or ExtractConfig.grid,
        pixels=list(pre.pixels) if pre.pixels else None,
        stride=key.stride,
        orient=pre.orient,
        filter=pre.filter,
        compute=key.compute,
    )
    for name, value in words.items():
        setattr(config, name, value)
    return command_line("strata extract run", config)


def recorded_commands(root: Path, stored: StoredKey) -> list[list[str]]:
    """The words of the commands that extracted features of a key, as far as records of the runs are there."""
    found = []
    for path in sorted(root.glob("runs/*.json")):
        with suppress(StoreError, AttributeError, KeyError, TypeError):  # a damaged record, or a worker's
            document = read_json(path)
            if document["key"] == stored.folder:
                found.append(shlex.split(document["command"]))
    return found


def made_by(store: FeatureStore, stored: StoredKey) -> dict[str, str]:
    """Libraries, device and weights that features of the key were made with."""
    folder = store.root / "features" / stored.folder
    for path in sorted(folder.glob("*/*/tokens/zarr.json")):
        group = path.parent.parent
        if (group / "zarr.json").exists():
            return dict(StoredGroup(group).array_attributes("tokens").get("provenance", {}))
    return {}


def _shards(store: FeatureStore, stored: StoredKey) -> str:
    """Where they were extracted from, if that is known and one place."""
    commands = recorded_commands(store.root, stored) if isinstance(store.root, Path) else []
    places = {word.partition("=")[2] for words in commands for word in words if word.startswith("shards=")}
    return places.pop() if len(places) == 1 else ELSEWHERE


def _weights(word: str) -> str:
    """A store keeps the name of a checkpoint, and not where it lies."""
    return word if word == "hub" or word.startswith("random:") else f"{ELSEWHERE}/{word}"
