"""Rows that need not be computed again after some scenes' geometry was mended.

What depends on geometry lies in a folder named by the geometry of the whole bundle, so one mended
scene moves all of them. The rows of the other scenes are taken over from the folder of before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..store.group import StoredGroup
from ..store.layout import GroupSpec, bundle_identity
from ..store.schema import Bundle


class Donor:
    """Committed groups of the same bundle under an older geometry.

    Args:
        root: the store.
        spec: the group that is to be written.
        bundle: with the geometry of now.
    """

    def __init__(self, root: Path, spec: GroupSpec, bundle: Bundle) -> None:
        self._spec = spec
        self._by_row: dict[int, StoredGroup] = {}
        if "scene_geometry" not in spec.attributes:
            return
        for group in _older_groups(root, spec, bundle):
            for row in bundle.scenes:
                if _same(spec, group, row.id):
                    self._by_row.update(dict.fromkeys(range(row.start, row.stop), group))

    def values(self, row: int) -> dict[str, np.ndarray] | None:
        """The stored arrays of a row, or None when it has to be computed."""
        group = self._by_row.get(row)
        if group is None or not all(group.array(name).present(row) for name in self._spec.by_unit):
            return None
        return {name: group.read(name, [row])[0] for name in self._spec.by_unit}


class Self:
    """The group itself, when only its failed rows are to be computed again."""

    def __init__(self, root: Path, spec: GroupSpec) -> None:
        self._spec, self._group = spec, StoredGroup(root / spec.folder)

    def values(self, row: int) -> dict[str, np.ndarray] | None:
        if not all(self._group.array(n).present(row) for n, s in self._spec.by_unit.items() if s.sharded):
            return None
        return {name: self._group.read(name, [row])[0] for name in self._spec.by_unit}


def _older_groups(root: Path, spec: GroupSpec, bundle: Bundle) -> list[StoredGroup]:
    folder = root / spec.folder
    # A layer lies one level below the bundle's folder, pixels and points are the bundle's folder.
    inside = folder.name if bundle_identity(folder.name)[0] == "" else None
    bundles = folder.parent.parent if inside else folder.parent
    groups = []
    for path in sorted(bundles.glob(f"*@{bundle.id}-*")):
        if bundle_identity(path.name)[1] not in (None, bundle.geometry):
            groups.append(StoredGroup(path / inside if inside else path))
    return [group for group in groups if all(group.has(name) for name in spec.arrays)]


def _same(spec: GroupSpec, group: StoredGroup, scene: str) -> bool:
    old, new = group.attributes, spec.attributes
    return all(
        old.get(name, {}).get(scene) is not None and old[name][scene] == new[name].get(scene)
        for name in ("scene_geometry", "scene_scale_m")
    )
