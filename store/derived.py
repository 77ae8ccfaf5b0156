"""Derived selections: channels side by side, principal components, unit length; computed when they are read.

They are selections like any other: load them, sample them, give them to a loader. `materialise` of
`derived_write.py` puts them into the store under a key of their own, for probes and other processes.

Shapes: ... any batch dimensions, D channels, K components.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SelectionError
from .block import Block
from .committed import CommittedLayers
from .feature_store import FeatureStore
from .group import StoredGroup
from .key import FeatureKey, digest
from .layer_place import LayerPlace
from .layer_tokens import LayerTokens, Rows
from .pca_fit import Basis, fit_basis
from .selection import Selection
from .set_runs import set_digest
from .stored_key import StoredKey

if TYPE_CHECKING:
    import torch


class Function(ABC):
    """What is done to tokens [..., D] f32 of one or more sources."""

    @abstractmethod
    def __call__(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        """[..., K] f32."""

    @abstractmethod
    def width(self, widths: Sequence[int]) -> int:
        """K, of the sources' D."""

    def attributes(self) -> dict[str, Any]:
        """What a stored layer says of it beyond its key."""
        return {}


class Concat(Function):
    """Channels of all sources side by side."""

    def __call__(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(sources, axis=-1)

    def width(self, widths: Sequence[int]) -> int:
        return sum(widths)


class UnitLength(Function):
    """Each token divided by its length; a token of zeros stays one."""

    def __call__(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        length = np.linalg.norm(sources[0], axis=-1, keepdims=True)
        return sources[0] / np.where(length == 0, np.float32(1), length)

    def width(self, widths: Sequence[int]) -> int:
        return widths[0]


@dataclass(frozen=True, eq=False)
class Project(Function):
    """Principal components."""

    basis: Basis

    def __call__(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        return (sources[0] - self.basis.mean) @ self.basis.components.T

    def width(self, widths: Sequence[int]) -> int:
        return len(self.basis.components)

    def attributes(self) -> dict[str, Any]:
        return {"pca": self.basis.to_dict()}


Source = tuple[Block, str]


class DerivedTokens(LayerTokens):
    """Tokens that are computed from those of other layers; rows are those of the sources' blocks."""

    def __init__(self, sources: Sequence[Source], function: Function, where: str) -> None:
        self.sources, self.function, self.storage, self._where = tuple(sources), function, "f32", where

    @property
    def group(self) -> StoredGroup:
        raise SelectionError(
            "derived features have tokens alone.",
            where=self._where,
            why="prefix tokens are not derived",
            fix="read them of the selection that it was derived from",
        )

    @property
    def map_shape(self) -> tuple[int, int, int]:
        rows, cols = self.sources[0][0].grid
        return rows, cols, self.function.width([block.width(layer) for block, layer in self.sources])

    @property
    def stored_dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def stored(self, rows: Rows, out: np.ndarray | None = None) -> np.ndarray:
        values = self._made(
            [block.tokens(layer, [int(row) for row in rows]) for block, layer in self.sources]
        )
        if out is None:
            return values
        out[...] = values
        return out

    def tensor(self, rows: Rows, device: str | torch.device = "cpu") -> torch.Tensor:
        import torch

        return torch.from_numpy(self.stored(rows)).to(device)

    def gather(self, rows: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        return self._made([block.gather(layer, rows, row, col) for block, layer in self.sources])

    def _made(self, values: list[np.ndarray]) -> np.ndarray:
        return self.function([one.astype(np.float32, copy=False) for one in values])


@dataclass(frozen=True, kw_only=True, eq=False)
class DerivedPlace(LayerPlace):
    """A layer that is computed; its rows count the views of the sources' blocks."""

    sources: tuple[Source, ...]
    function: Function

    @property
    def origin(self) -> tuple:
        return self.bundle.id, id(self.sources)

    def open(self, store: FeatureStore, stored: StoredKey, layer: str) -> LayerTokens:
        return DerivedTokens(self.sources, self.function, f"{stored.name}, {layer}")


def concat(a: Selection, b: Selection) -> Selection:
    """Layers of `a` with those of `b` behind them, channel by channel, for the views that both have.

    The first layer of one goes with the first of the other, and so on; `block5` with `norm` is `block5+norm`.

    Features of whole sets are joined set by set, or with those of views alone, which are then named second.

    Raises:
        SelectionError: they have other numbers of layers, other token grids, or no view in common; or the
            second alone is of sets.
    """
    mine, theirs = a.key.preprocess, b.key.preprocess
    if len(a.layers) != len(b.layers):
        raise _unlike(a, b, f"{len(a.layers)} layers and {len(b.layers)}", "select as many layers of both")
    if (mine.fit, mine.orient) != (theirs.fit, theirs.orient):
        raise _unlike(a, b, "their images were cut in other ways", "extract both alike: fit=, orient=")
    if _cells(a) != _cells(b):
        why = "their tokens lie on other cells of the image"
        raise _unlike(a, b, why, "extract both with the same stride=, of encoders of one patch size")
    pairs, function = list(zip(a.layers, b.layers, strict=True)), Concat()
    if a.key.context == "view" and b.key.context == "set":
        raise _unlike(
            a, b, "a view has other features in each of its sets", "name the features of sets first"
        )
    blocks = [
        (block, [((block, i), (other, j)) for i, j in pairs], [function] * len(pairs))
        for block, other in _common_views(a, b)
    ]
    if not blocks:
        raise _unlike(a, b, "no view in common in the same token grid", "extract both with the same grid=")
    return _derived(a, _concat_key(a.key, b.key), tuple(f"{i}+{j}" for i, j in pairs), blocks)


def _concat_key(a: FeatureKey, b: FeatureKey) -> FeatureKey:
    return replace(
        a,
        encoder=f"{a.encoder}+{b.encoder}",
        weights=digest([a.weights, b.weights]),
        context="set" if "set" in (a.context, b.context) else "view",
        derived=f"concat({a.id},{b.id})",
    )


def l2(a: Selection) -> Selection:
    """Every token divided by its length."""
    key = replace(a.key, encoder=f"{a.key.encoder}-l2", derived=f"l2({a.key.id})")
    return _mapped(a, key, {layer: UnitLength() for layer in a.layers})


def pca(a: Selection, k: int, *, fit: Selection | None = None, fit_views: int = 1000) -> Selection:
    """The first `k` principal components of every layer, about its mean.

    The basis is of float64 covariances over all finite tokens of the views fitted on; each component's
    largest loading is positive, so equal input gives the same basis.

    Args:
        a: whose tokens.
        k: components.
        fit: what the basis is fitted on, of the same layers; None = `a`.
        fit_views: at most so many views of it, evenly chosen.

    Raises:
        SelectionError: a layer has fewer channels, or `fit` lacks a layer.
    """
    fit = a if fit is None else fit.where(layers=a.layers)
    bases = {layer: fit_basis(fit, layer, k, fit_views) for layer in a.layers}
    # The selection's fingerprint covers its layers; a basis depends on its own alone.
    fitted = digest([fit.key.id, [row["image_digest"] for row in fit.table()]])[:12]
    derived = f"pca({a.key.id},{k},fit={fitted},views={fit_views})"
    key = replace(a.key, encoder=f"{a.key.encoder}-pca{k}", derived=derived)
    return _mapped(a, key, {layer: Project(basis) for layer, basis in bases.items()})


def _mapped(a: Selection, key: FeatureKey, functions: dict[str, Function]) -> Selection:
    blocks = [
        (block, [((block, layer),) for layer in a.layers], [functions[layer] for layer in a.layers])
        for block in a.parts
    ]
    return _derived(a, key, a.layers, blocks)


def _derived(
    a: Selection,
    key: FeatureKey,
    layers: tuple[str, ...],
    blocks: Sequence[tuple[Block, Sequence[tuple[Source, ...]], Sequence[Function]]],
) -> Selection:
    """The selection of blocks with, for each of the layers, its sources and its function."""
    stored = StoredKey(
        key=key,
        folder=key.folder,
        patch_size=a.stored_key.patch_size,
        depth=a.stored_key.depth,
        bundles=CommittedLayers(a.store.root / "features" / key.folder),
    )
    parts = []
    for block, sources, functions in blocks:
        places: dict[str, LayerPlace] = {
            layer: DerivedPlace(
                bundle=block.bundle,
                rows=tuple(range(len(block))),
                storage="f32",
                sources=of_layer,
                function=function,
            )
            for layer, of_layer, function in zip(layers, sources, functions, strict=True)
        }
        parts.append(replace(block, stored_key=stored, places=places))
    return replace(a, stored_key=stored, layers=layers, parts=tuple(parts))


def _cells(selection: Selection) -> tuple[int, int] | None:
    """What the places of tokens depend on beside the grid: patch and stride where patches overlap."""
    stride = selection.key.stride
    return (selection.stored_key.patch_size, stride) if stride else None


def _common_views(a: Selection, b: Selection) -> list[tuple[Block, Block]]:
    """Parts of blocks of both with the same views, in the same sets where both are of sets."""
    theirs: dict[tuple[str, str], list[Block]] = {}
    for block in b.parts:
        theirs.setdefault((block.scene, set_digest(block.bundle, block.scene_row)), []).append(block)
    pairs = []
    for block in a.parts:
        of_set = set_digest(block.bundle, block.scene_row) if b.key.context == "set" else ""
        for other in theirs.get((block.scene, of_set), []):
            at = {(view.position, view.image_digest): j for j, view in enumerate(other.views)}
            keys = [(view.position, view.image_digest) for view in block.views]
            both = [i for i, key in enumerate(keys) if key in at]
            if both and block.grid == other.grid:
                pairs.append((block.part(both), other.part([at[keys[i]] for i in both])))
    return pairs


def _unlike(a: Selection, b: Selection, why: str, fix: str) -> SelectionError:
    where = f"{a.stored_key.name} and {b.stored_key.name}"
    return SelectionError("the selections cannot be put side by side.", where=where, why=why, fix=fix)
