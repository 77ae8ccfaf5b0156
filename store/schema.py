"""What the store keeps, as values: views, catalog records and view sets; splits are in `split_lists.py`.

`../docs/store-format.md` is the format byte by byte; every document in it is written and read
through the `to_dict` and `from_dict` of these classes, which check what they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import lt
from typing import Any

from .key import Size, digest, readable
from .record_fields import are_hex, are_scene_ids, check_hex, check_scene_id, whole_number

VERSION = 1
MAX_BUNDLE_VIEWS = 4096
OWN_BUNDLE_VIEWS = 256


@dataclass(frozen=True, kw_only=True)
class ViewRow:
    """One view as the store knows it.

    Attributes:
        name: frame name, unique in its scene.
        position: index in the scene, from 0.
        image_digest, geometry_digest: sha256 hex; see docs/store-format.md.
        source_digest: image digest of the source, where the image was made smaller for packing.
    """

    name: str
    position: int
    image_digest: str
    geometry_digest: str
    source_digest: str | None = None

    def shows(self, image_digest: str) -> bool:
        """Whether that is its image, be it as it was before it was made smaller."""
        return image_digest in (self.image_digest, self.source_digest)

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ViewRow:
        return cls(
            name=str(value["name"]),
            position=whole_number(value["position"]),
            image_digest=check_hex(value["image_digest"]),
            geometry_digest=check_hex(value["geometry_digest"]),
            source_digest=check_hex(value["source_digest"]) if "source_digest" in value else None,
        )


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """One scene in one bundle: the rows start:stop.

    Attributes:
        id: `<dataset>/<scene>`.
        digest: over the ordered [frame name, image digest] of the *whole* scene.
        geometry: over the ordered geometry digests of the *whole* scene: its scale, which the
            oracles use, depends on all of them.
        generation: 1 for the first version of a scene that was planned; the highest is current.
        start, stop: rows of the bundle.
    """

    id: str
    digest: str
    geometry: str
    generation: int
    start: int
    stop: int

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dicts(cls, values: Sequence[dict[str, Any]]) -> tuple[SceneRow, ...]:
        """Many at once, in a quarter of the time: thousands are read whenever a store is opened."""
        names = cls.__dataclass_fields__
        ids, digests, geometries, *numbers = [[value[name] for value in values] for name in names]
        known = set(map(len, values)) <= {len(names)}
        if known and are_scene_ids(ids) and are_hex([*digests, *geometries]) and _are_runs(*numbers):
            rows = tuple(object.__new__(cls) for _ in values)
            for row, value in zip(rows, values, strict=True):
                # The constructor of a frozen class takes four times as long: it sets each field by a call.
                vars(row).update(value)
            return rows
        return tuple(map(cls.from_dict, values))  # tells which one is wrong, and how

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> SceneRow:
        row = cls(
            id=check_scene_id(value["id"]),
            digest=check_hex(value["digest"]),
            geometry=check_hex(value["geometry"]),
            generation=whole_number(value["generation"]),
            start=whole_number(value["start"]),
            stop=whole_number(value["stop"]),
        )
        if not (0 <= row.start < row.stop <= MAX_BUNDLE_VIEWS and row.generation >= 1):
            raise ValueError(f"rows {row.start}:{row.stop}, generation {row.generation}")
        return row


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """One view set of a set encoder's bundle: the rows start:stop."""

    digest: str
    start: int
    stop: int

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> SetRow:
        return cls(
            digest=check_hex(value["digest"]),
            start=whole_number(value["start"]),
            stop=whole_number(value["stop"]),
        )


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A storage unit: views of one or many scenes that share one token grid.

    Attributes:
        id: 16 hex digits over the grid and the image digests of the rows.
        grid: (rows, cols) tokens.
        scenes: runs of rows in order; they cover 0:len(bundle) without gaps.
        sets: for features of whole sets, runs of as many rows each that follow each other; else empty.
    """

    id: str
    grid: Size
    scenes: tuple[SceneRow, ...]
    sets: tuple[SetRow, ...] = ()

    def __len__(self) -> int:
        return self.scenes[-1].stop

    @property
    def together(self) -> int:
        """How many rows are encoded together: the views of a set, or 1."""
        return self.sets[0].stop if self.sets else 1

    @property
    def folder(self) -> str:
        """`eth3d.courtyard+3@3fa9c1d2...`: where what depends on images alone lies."""
        first = self.scenes[0].id.replace("/", ".")
        others = len({row.id for row in self.scenes}) - 1
        return readable(first + (f"+{others}" if others else ""), self.id)

    @property
    def geometry(self) -> str:
        """8 hex digits over the scenes' geometry digests."""
        return digest([row.geometry for row in self.scenes])[:8]

    @property
    def geometry_folder(self) -> str:
        """Where what depends on depth or cameras lies."""
        return f"{self.folder}-{self.geometry}"

    def with_versions(self, versions: dict[tuple[str, str], tuple[str, int]]) -> Bundle:
        """The same rows with, by (scene id, scene digest), another (geometry, generation)."""
        scenes = []
        for row in self.scenes:
            geometry, generation = versions.get((row.id, row.digest), (row.geometry, row.generation))
            scenes.append(replace(row, geometry=geometry, generation=generation))
        return replace(self, scenes=tuple(scenes))

    def to_dict(self) -> dict[str, Any]:
        return {
            "grid": list(self.grid),
            "scenes": [row.to_dict() for row in self.scenes],
            "sets": [row.to_dict() for row in self.sets],
        }

    @classmethod
    def from_dict(cls, bundle_id: str, value: dict[str, Any]) -> Bundle:
        rows, cols = value["grid"]
        bundle = cls(
            id=check_hex(bundle_id, 16),
            grid=(whole_number(rows, least=1), whole_number(cols, least=1)),
            scenes=SceneRow.from_dicts(value["scenes"]),
            sets=tuple(map(SetRow.from_dict, value.get("sets", ()))),
        )
        starts = [0, *(row.stop for row in bundle.scenes)]
        if not bundle.scenes or starts[:-1] != [row.start for row in bundle.scenes]:
            raise ValueError("the scenes' rows do not follow each other")
        size, end = max(1, bundle.together), len(bundle) if bundle.sets else 0
        if [(row.start, row.stop) for row in bundle.sets] != [(i, i + size) for i in range(0, end, size)]:
            raise ValueError("the sets' rows do not follow each other, or sets differ in size")
        return bundle


@dataclass(frozen=True, kw_only=True)
class SceneViews:
    """The rows that one scene contributes to a bundle, with the scene's version."""

    id: str
    digest: str
    geometry: str
    generation: int
    views: tuple[ViewRow, ...]


def make_bundle(grid: Size, scenes: Sequence[SceneViews], sets: tuple[SetRow, ...] = ()) -> Bundle:
    """The bundle of these scenes' rows, in this order."""
    rows = [[scene.id, row.position, row.image_digest] for scene in scenes for row in scene.views]
    content = {"grid": list(grid), "rows": rows, **({"sets": [s.digest for s in sets]} if sets else {})}
    stops = list(accumulate(len(scene.views) for scene in scenes))
    located = tuple(
        SceneRow(
            id=scene.id,
            digest=scene.digest,
            geometry=scene.geometry,
            generation=scene.generation,
            start=stop - len(scene.views),
            stop=stop,
        )
        for scene, stop in zip(scenes, stops, strict=True)
    )
    return Bundle(id=digest(content)[:16], grid=grid, scenes=located, sets=sets)


def scene_geometry(geometry_digests: Sequence[str]) -> str:
    """sha256 over the ordered geometry digests of all views of a scene."""
    return digest(list(geometry_digests))


def scene_digest(views: list[tuple[str, str]]) -> str:
    """sha256 over the ordered [frame name, image digest] of a scene."""
    return digest([[name, image] for name, image in views])


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """Views of one scene that are looked at together.

    Attributes:
        scene: scene id.
        members: frame names in order; the first is the reference view.
        images: the members' image digests, which make the set's identity.
        covisibility: [V][V] shares of row's pixels that column sees, or None where unknown.
    """

    scene: str
    members: tuple[str, ...]
    images: tuple[str, ...]
    covisibility: tuple[tuple[float, ...], ...] | None = None

    @property
    def digest(self) -> str:
        """sha256 over the scene and the ordered [frame name, image digest]."""
        return digest([self.scene, [list(pair) for pair in zip(self.members, self.images, strict=True)]])

    def to_dict(self) -> dict[str, Any]:
        rows = self.covisibility
        return {
            "scene": self.scene,
            "digest": self.digest,
            "members": list(self.members),
            "images": list(self.images),
            "covisibility": [list(row) for row in rows] if rows is not None else None,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ViewSet:
        rows = value.get("covisibility")
        made = cls(
            scene=check_scene_id(value["scene"]),
            members=tuple(map(str, value["members"])),
            images=tuple(check_hex(item) for item in value["images"]),
            covisibility=tuple(tuple(map(float, row)) for row in rows) if rows is not None else None,
        )
        if len(made.members) != len(made.images) or not made.members:
            raise ValueError("a set needs as many image digests as members, and at least one")
        if value.get("digest", made.digest) != made.digest:
            raise ValueError(f"the set's digest {value['digest'][:12]} is not that of its members")
        return made


def _are_runs(generations: list[Any], starts: list[Any], stops: list[Any]) -> bool:
    return (
        set(map(type, (*generations, *starts, *stops))) <= {int}
        and min(generations, default=1) >= 1
        and min(starts, default=0) >= 0
        and max(stops, default=0) <= MAX_BUNDLE_VIEWS
        and all(map(lt, starts, stops))
    )
