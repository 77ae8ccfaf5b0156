"""The plan of an extraction: which bundles, which groups, which units remain, how many bytes.

Planning reads the shard index and the catalog and writes nothing; `run` carries the plan out.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.schema import ExtractConfig
from ..errors import DiskFullError
from ..store.catalog import Catalog
from ..store.feature_store import FeatureStore
from ..store.key import FeatureKey
from ..store.layers import resolve_layers
from ..store.layout import GroupSpec
from ..store.lock import shared
from ..store.remote.path import written
from ..store.schema import MAX_BUNDLE_VIEWS, Bundle, ViewRow, ViewSet, scene_geometry
from ..store.writer import GroupWriter
from .bundling import Assigned, Versions, Want, assign_bundles, scene_grids, version_scenes
from .encoders.base import Encoder
from .groups import Groups
from .packed_scene import PackedScene, PackedView
from .set_bundling import assign_set_bundles, set_wants
from .shards import ShardIndex
from .storage import Sample, choose_storages, sample_views, undecided
from .store_lists import scene_sets
from .words import feature_key, wanted_scenes


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Where a row's image comes from."""

    scene: PackedScene
    view: PackedView


@dataclass(frozen=True, kw_only=True, eq=False)
class BundlePlan:
    """One bundle and the groups that this extraction owes it.

    Attributes:
        bundle, views: the record.
        new: whether the catalog does not have it yet.
        sources: of each row; None = the scene was packed again and the old image is gone.
        layers: group by layer.
        others: `images`, `geometry` and `points`, as far as they are kept.
    """

    bundle: Bundle
    views: tuple[ViewRow, ...]
    new: bool
    sources: tuple[Source | None, ...]
    layers: dict[str, GroupSpec]
    others: dict[str, GroupSpec]

    @property
    def groups(self) -> list[GroupSpec]:
        return [*self.others.values(), *self.layers.values()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that `run` needs to know.

    Attributes:
        root: the store.
        key: of the features.
        encoder: on its device; with backend=ray on this machine's CPU, for planning alone.
        device: of the forward passes.
        storages: by resolved layer name.
        versions: changes of existing catalog records.
        bundles: in order of work.
        scenes: that are wanted.
        splits: that come with the shards.
        sample: what a few views told, where they were looked at.
    """

    root: Path
    key: FeatureKey
    encoder: Encoder
    device: str
    storages: dict[str, str]
    versions: Versions
    bundles: tuple[BundlePlan, ...]
    scenes: tuple[PackedScene, ...]
    splits: dict[str, tuple[str, ...]]
    sample: Sample | None

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.storages)

    @property
    def views(self) -> int:
        """Views of all bundles."""
        return sum(len(part.bundle) for part in self.bundles)

    @property
    def views_left(self) -> int:
        """Views of which at least one layer's unit is still to be written."""
        return sum(len(rows_left(self.root, part.layers.values())) for part in self.bundles)

    @property
    def bytes_left(self) -> int:
        """Bytes that will be written at most: all arrays, before compression."""
        return sum(bytes_left(GroupWriter(self.root, spec)) for part in self.bundles for spec in part.groups)

    def check_space(self) -> None:
        """Refuse what will not fit.

        Raises:
            DiskFullError: the free space is smaller than what is left to write.
        """
        needed, free = self.bytes_left, free_bytes(self.root)
        if needed > free:
            raise DiskFullError(
                f"the extraction may need {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free.",
                where=self.root,
                why="features barely compress",
                fix="ask for fewer layers or a smaller grid, use views=none, make room, or force=true",
            )


def make_plan(
    config: ExtractConfig,
    index: ShardIndex,
    encoder: Encoder,
    *,
    device: str,
    compute: str,
    measure: bool = False,
) -> Plan:
    """The plan for the words of the command.

    Args:
        config, index, encoder: the words, the packed scenes, and the encoder on its device.
        compute: resolved dtype of the forward pass.
        measure: look at a few views even if nothing depends on them (for the rate).

    Raises:
        ConfigError, LayerError, SelectionError, StoreError: see the message.
    """
    root, key = written(config.store), feature_key(config, encoder, compute)
    layers = resolve_layers(config.layers, encoder.layers(), encoder.info.depth)
    scenes = wanted_scenes(config, index)
    sets = scene_sets(scenes, config, config.sets) if encoder.info.context == "set" else []
    measure = measure or undecided(config.storage, root, key, layers)
    sample = sample_views(encoder, key, layers, scenes, device, sets) if measure else None
    storages = choose_storages(config.storage, root, key, layers, sample)
    groups = _groups(config, index, encoder, key, storages)
    with shared(root):
        versions, assigned = _assign(root, scenes, groups, sets)
    return Plan(
        root=root,
        key=key,
        encoder=encoder,
        device=device,
        storages=dict(groups.storages),
        versions=versions,
        bundles=tuple(bundle_plan(item.bundle, item.views, groups, new=item.new) for item in assigned),
        scenes=scenes,
        splits=index.splits,
        sample=sample,
    )


def _groups(
    config: ExtractConfig, index: ShardIndex, encoder: Encoder, key: FeatureKey, storages: dict[str, str]
) -> Groups:
    return Groups(
        key=key,
        encoder=encoder,
        storages=storages,
        views=config.views,
        unit_views=config.unit_views,
        packed={scene.id: scene for scene in index.scenes},
    )


def _assign(
    root: Path, scenes: Iterable[PackedScene], groups: Groups, sets: Sequence[ViewSet]
) -> tuple[Versions, list[Assigned]]:
    """What changes in the catalog, and the bundles that hold what is wanted."""
    of_sets = groups.key.context == "set"
    by_scene = {scene.id: _wants(scene, groups) for scene in scenes}
    views = [want for wants in by_scene.values() for want in wants]
    stored = FeatureStore.open(root).catalog if (root / "zarr.json").exists() else Catalog(root / "catalog")
    versions = version_scenes(views, stored)
    assign = assign_set_bundles if of_sets else assign_bundles
    assigned = assign(
        set_wants(by_scene, sets) if of_sets else views,
        _with_versions(stored, versions),
        generations=versions.generations,
        available={scene.id: scene.digest for scene in groups.packed.values()},
        complete=lambda bundle: all(_writers(root, groups, bundle, "committed")),
        started=lambda bundle: any(_writers(root, groups, bundle, "started")),
    )
    return versions, assigned


def rows_left(root: Path, specs: Iterable[GroupSpec]) -> set[int]:
    """Rows that some of these groups still want."""
    left: set[int] = set()
    for spec in specs:
        for unit in GroupWriter(root, spec).missing_units():
            left.update(next(iter(spec.by_unit.values())).rows(unit))
    return left


def bytes_left(writer: GroupWriter) -> int:
    """Bytes of the units of a group that are still to be written."""
    units = writer.missing_units()
    # A plain chunk is written in full, a shard holds the rows that there are.
    return sum(
        (len(spec.rows(unit)) if spec.sharded else spec.unit) * spec.row_bytes
        for spec in writer.spec.by_unit.values()
        for unit in units
    )


def free_bytes(path: Path) -> int:
    """Free space where `path` is or will be."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _wants(scene: PackedScene, groups: Groups) -> list[Want]:
    sizes, info = [view.source_size for view in scene.views], groups.encoder.info
    grids = scene_grids(sizes, groups.key.preprocess, info.patch_size, info.stride)
    by_grid: dict[tuple[int, int], list[ViewRow]] = defaultdict(list)
    for view, grid in zip(scene.views, grids, strict=True):
        row = ViewRow(
            name=view.name,
            position=view.position,
            image_digest=view.image_digest,
            geometry_digest=view.geometry_digest,
            source_digest=view.source_digest,
        )
        by_grid[grid].append(row)
    geometry = scene_geometry(scene.geometry_digests)
    return [
        Want(
            scene=scene.id,
            digest=scene.digest,
            geometry=geometry,
            grid=grid,
            rows=tuple(rows[start : start + MAX_BUNDLE_VIEWS]),
        )
        for grid, rows in by_grid.items()
        for start in range(0, len(rows), MAX_BUNDLE_VIEWS)
    ]


def _with_versions(catalog: Catalog, versions: Versions) -> Catalog:
    if not versions.updated:
        return catalog
    changed = {bundle.id: bundle for bundle, _ in versions.updated}
    updated = Catalog(catalog.folder, {**catalog.bundles, **changed}.values())
    updated.remember({bundle.id: views for bundle, views in versions.updated})
    return updated


def _writers(root: Path, groups: Groups, bundle: Bundle, state: str) -> list[bool]:
    return [getattr(GroupWriter(root, spec), state) for spec in groups.layers(bundle).values()]


def bundle_plan(bundle: Bundle, views: tuple[ViewRow, ...], groups: Groups, *, new: bool) -> BundlePlan:
    """What the groups of one bundle are, and where its rows' images come from."""
    sources = []
    for row in bundle.scenes:
        scene = groups.packed.get(row.id)
        there = scene if scene is not None and scene.digest == row.digest else None
        for view in views[row.start : row.stop]:
            sources.append(there and Source(scene=there, view=there.views[view.position]))
    return BundlePlan(
        bundle=bundle,
        views=views,
        new=new,
        sources=tuple(sources),
        layers=groups.layers(bundle),
        others=groups.others(bundle),
    )
