"""The command that extracts more under a stored key: its words are what the features say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..configs.load import command_line
from ..configs.schema import ExtractConfig
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
        shards=ELSEWHERE,
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


def made_by(store: FeatureStore, stored: StoredKey) -> dict[str, str]:
    """Libraries, device and weights that features of the key were made with."""
    folder = store.root / "features" / stored.folder
    for path in sorted(folder.glob("*/*/tokens/zarr.json")):
        group = path.parent.parent
        if (group / "zarr.json").exists():
            return dict(StoredGroup(group).array_attributes("tokens").get("provenance", {}))
    return {}


def _weights(word: str) -> str:
    """A store keeps the name of a checkpoint, and not where it lies."""
    return word if word == "hub" or word.startswith("random:") else f"{ELSEWHERE}/{word}"
