"""Strata: multi-layer features of vision backbones over multi-view scenes, extracted once, probed often.

    import strata

    store = strata.open_store("feats.zarr")

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import StrataError
    from .extract.encoders.base import Encoder, FeatureMap, ViewBatch
    from .extract.encoders.feature_extractor import feature_extractor
    from .extract.encoders.registry import create as create_encoder
    from .extract.encoders.vggt.model import VGGT
    from .store.feature_store import FeatureStore
    from .store.key import FeatureKey, Preprocess
    from .store.schema import ViewSet

__version__ = "0.1.0"

__all__ = [
    "VGGT",
    "Encoder",
    "FeatureKey",
    "FeatureMap",
    "FeatureStore",
    "Preprocess",
    "StrataError",
    "ViewBatch",
    "ViewSet",
    "create_encoder",
    "feature_extractor",
    "open_store",
]

_HOMES = {
    "Encoder": "extract.encoders.base:Encoder",
    "FeatureKey": "store.key:FeatureKey",
    "FeatureMap": "extract.encoders.base:FeatureMap",
    "FeatureStore": "store.feature_store:FeatureStore",
    "Preprocess": "store.key:Preprocess",
    "StrataError": "errors:StrataError",
    "VGGT": "extract.encoders.vggt.model:VGGT",
    "ViewBatch": "extract.encoders.base:ViewBatch",
    "ViewSet": "store.schema:ViewSet",
    "create_encoder": "extract.encoders.registry:create",
    "feature_extractor": "extract.encoders.feature_extractor:feature_extractor",
}


def open_store(path: str) -> FeatureStore:
    """The store at `path`, opened for reading.

    Raises:
        StoreError: there is no store, or it is damaged or of another version.
    """
    from .store.feature_store import FeatureStore

    return FeatureStore.open(path)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
