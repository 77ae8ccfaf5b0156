"""What of a feature key is committed, looked up as far as it is asked for.

A store may have thousands of bundles; who wants one scene looks at one of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from .layers import split_stored
from .layout import bundle_identity
from .schema import Bundle

Identity = tuple[str, str | None]
"""Bundle id, and geometry where features depend on it."""
Layers = dict[str, tuple[str, ...]]
"""Storages by layer."""


class CommittedLayers(Mapping[Identity, Layers]):
    """The bundles with at least one committed layer, each as it was when it was first looked at.

    Args:
        folder: of a key, under `features/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layers: dict[str, Layers] = {}

    def __getitem__(self, identity: Identity) -> Layers:
        if layers := self._of(self._names[identity]):
            return layers
        raise KeyError(identity)

    def __iter__(self) -> Iterator[Identity]:
        return (identity for identity, name in self._names.items() if self._of(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next(self.layer_names(), None) is not None

    def layer_names(self) -> Iterator[str]:
        """Every layer once, as soon as the first bundle is found that has it."""
        seen: set[str] = set()
        for identity, name in self._listed():
            if identity[0]:
                new = self._of(name).keys() - seen
                seen |= new
                yield from new

    def find(self, bundle: Bundle) -> tuple[str, Layers]:
        """Folder name and layers of a bundle as its geometry is now; no layers when none is committed.

        The name that we would give is tried before the folders are listed.
        """
        for name in (bundle.folder, bundle.geometry_folder):
            if layers := self._of(name):
                return name, layers
        for identity in ((bundle.id, None), (bundle.id, bundle.geometry)):
            if layers := self.get(identity):
                return self._names[identity], layers
        return bundle.folder, {}

    @cached_property
    def _names(self) -> dict[Identity, str]:
        return {identity: name for identity, name in sorted(self._listed()) if identity[0]}

    def _listed(self) -> Iterator[tuple[Identity, str]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield bundle_identity(entry.name), entry.name

    def _of(self, name: str) -> Layers:
        if name not in self._layers:
            self._layers[name] = _committed(f"{self._folder}/{name}")
        return self._layers[name]


def _committed(bundle: str) -> Layers:
    layers: Layers = {}
    try:
        groups = sorted(os.listdir(bundle))
    except (FileNotFoundError, NotADirectoryError):
        return layers
    for group in groups:
        path = f"{bundle}/{group}"
        if os.path.exists(f"{path}/tokens/zarr.json") and os.path.exists(f"{path}/zarr.json"):
            layer, storage = split_stored(group)
            layers[layer] = (*layers.get(layer, ()), storage)
    return layers
