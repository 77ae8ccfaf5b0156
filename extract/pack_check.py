"""Reading every view once before it is packed: it is decoded, digested, and gives its depths.

Views are read ahead on threads, across scene borders. A view that lies in a finished shard with the
same digests was decoded then; it is read for its digests alone.
"""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..errors import SceneError, StrataError, first_few
from .pack_members import CheckedScene, CheckedView, Member, source_record
from .scenes.decode import decode_view
from .scenes.scene import Blob, Scene, SceneSource, View
from .shrink import Reduction

# The scale is the exact median of up to so many depths (64 MB). In a scene of more, each view gives
# at most its equal share: every k-th of its valid depths in row order, with the smallest such k.
SCENE_DEPTHS = 2**24

# So many views behind the scene in hand are read ahead, so that threads are busy while a shard is written.
AHEAD_VIEWS = 64


@dataclass(frozen=True, kw_only=True)
class KnownScene:
    """What finished shards say of a whole scene: its scale and the entries of its views in order."""

    scene_scale_m: float | None
    views: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class BrokenScene:
    """A scene that cannot be packed, with all its faults."""

    id: str
    errors: tuple[StrataError, ...]

    def __str__(self) -> str:
        return "\n".join(f"{self.id}: {error.what} ({error.where})" for error in self.errors)


def check_scenes(
    source: SceneSource,
    ids: Iterable[str],
    known: dict[str, KnownScene],
    pool: Executor,
    max_side: int | None = None,
) -> Iterator[CheckedScene | BrokenScene]:
    """Every scene in order, checked or with its faults.

    Args:
        source: where the scenes come from.
        ids: the scenes that are wanted.
        known: scenes that finished shards hold, by id.
        pool: threads to read on.
        max_side: views with a longer side are made smaller; None = none are.
    """
    waiting: deque[_SceneReads] = deque()
    for scene_id in ids:
        waiting.append(_SceneReads(source, scene_id, known.get(scene_id), pool, max_side))
        while sum(len(reads) for reads in islice(waiting, 1, None)) >= AHEAD_VIEWS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    view: CheckedView
    depths: np.ndarray | None  # [n] f32 positive depths; None = the view is known and was not decoded


class _SceneReads:
    """One scene whose views are being read on the pool."""

    def __init__(
        self,
        source: SceneSource,
        scene_id: str,
        known: KnownScene | None,
        pool: Executor,
        max_side: int | None,
    ) -> None:
        self.id, self._known, self._pool, self._max_side = scene_id, known, pool, max_side
        self._errors: list[StrataError] = []
        self._reads: list[Future[_Read]] = []
        try:
            self._scene = source.scene(scene_id)
            _check_scene(self._scene)
        except StrataError as error:
            self._errors.append(error)
            return
        entries = known.views if known and len(known.views) == len(self._scene) else None
        self._reads = self._submit(entries or [None] * len(self._scene))

    def __len__(self) -> int:
        return len(self._reads)

    def result(self) -> CheckedScene | BrokenScene:
        """Waits for the views."""
        reads = self._gathered()
        if 0 < sum(read.depths is None for read in reads) < len(self._reads):
            # The scale is the whole scene's, so one changed view asks for the depths of all.
            self._reads = self._submit([None] * len(self._reads))
            self._errors.clear()
            reads = self._gathered()
        if self._errors:
            return BrokenScene(id=self.id, errors=tuple(self._errors))
        depths = [read.depths for read in reads if read.depths is not None]
        return CheckedScene(
            id=self._scene.id,
            scale_type=self._scene.scale_type,
            rules=self._scene.rules,
            scene_scale_m=_median(depths) if depths or not self._known else self._known.scene_scale_m,
            covisibility=_npy(self._scene.covisibility),
            views=tuple(read.view for read in reads),
        )

    def _submit(self, known: Iterable[dict[str, Any] | None]) -> list[Future[_Read]]:
        pairs = zip(self._scene.views, known, strict=True)
        return [
            self._pool.submit(_read_view, view, self._scene, entry, self._max_side) for view, entry in pairs
        ]

    def _gathered(self) -> list[_Read]:
        reads = []
        for future in self._reads:
            try:
                reads.append(future.result())
            except StrataError as error:
                self._errors.append(error)
        return reads


def _read_view(view: View, scene: Scene, known: dict[str, Any] | None, max_side: int | None) -> _Read:
    """Every byte of a view is read once; decoding and digests share them."""
    _check_view(view, scene)
    held = view.held()
    smaller = Reduction.of(held, scene, max_side) if max_side else None
    packed = smaller.apply(held).held() if smaller else held
    identity = {
        "image_digest": packed.image_digest,
        "geometry_digest": packed.geometry_digest(scene.scale_type, scene.rules),
    }
    now = {**identity, "source": source_record(packed.source)}
    if known and all(known.get(name) == value for name, value in now.items()):
        width, height, depths = known["width"], known["height"], None
    else:
        decoded = decode_view(packed)
        width, height = decoded.width, decoded.height
        # The scale is that of the source's depths, whatever size is packed.
        depth_m = smaller.source_depth(held) if smaller else decoded.depth_m
        depths = _sampled(depth_m, SCENE_DEPTHS // len(scene))
    view = smaller.apply(view) if smaller else view
    checked = CheckedView(
        view=view,
        width=width,
        height=height,
        image=_member(view.image, packed.image),
        depth=_member(view.depth, packed.depth) if view.depth and packed.depth else None,
        masks={name: _member(blob, packed.masks[name]) for name, blob in view.masks.items()},
        **identity,
    )
    return _Read(view=checked, depths=depths)


def _member(blob: Blob, held: Blob) -> Member:
    """The blob as a member, without the bytes: they are read again when the shard is written."""
    assert held.data is not None
    return Member(blob=blob, size=len(held.data), sha256=held.sha256)


def _sampled(depth_m: np.ndarray | None, most: int) -> np.ndarray:
    """Positive depths of a view, at most `most` (and at least one), evenly over its rows."""
    if depth_m is None:
        return np.empty(0, np.float32)
    depths = depth_m[depth_m > 0]
    return depths[:: -(-len(depths) // max(1, most)) or 1].copy()


def _median(depths: list[np.ndarray]) -> float | None:
    """The median in double precision, or None of no depths."""
    values = np.concatenate(depths) if depths else np.empty(0, np.float32)
    if not len(values):
        return None
    middle = [(len(values) - 1) // 2, len(values) // 2]
    low, high = np.partition(values, middle)[middle].tolist()
    return (low + high) / 2


def _npy(covisibility: np.ndarray | None) -> Member | None:
    if covisibility is None:
        return None
    file = io.BytesIO()
    array = np.ascontiguousarray(covisibility, dtype="<f4")
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return Member.of_bytes(file.getvalue(), "npy")


def _check_scene(scene: Scene) -> None:
    if not scene.views:
        raise SceneError("the scene has no views.", where=scene.id, fix="leave the scene out")
    repeated = [name for name, times in Counter(view.name for view in scene.views).items() if times > 1]
    if repeated:
        raise SceneError(
            f"frame names are not unique: {first_few(repeated)}.",
            where=scene.id,
            why="a view is found by its name",
            fix="rename the frames",
        )
    if scene.covisibility is not None and scene.covisibility.shape != (len(scene), len(scene)):
        raise SceneError(
            f"the covisibility has shape {list(scene.covisibility.shape)}.",
            where=scene.id,
            why=f"one row and one column for each of {len(scene)} views are expected",
            fix="compute the covisibility again",
        )


def _check_view(view: View, scene: Scene) -> None:
    for name, array, side in (("K_px", view.K_px, 3), ("world_from_cam", view.world_from_cam, 4)):
        if array is not None and not (np.shape(array) == (side, side) and np.isfinite(array).all()):
            raise SceneError(
                f"{name} is not a finite {side} x {side} matrix.",
                where=f"{scene.id}, view {view.name}",
                why=f"it has shape {list(np.shape(array))} and values {first_few(np.ravel(array), most=4)}",
                fix="mend the camera, or leave it out",
            )
    try:
        view.name.encode()
    except UnicodeEncodeError:
        raise SceneError(
            f"the frame name {view.name!r} is not Unicode text.", where=scene.id, fix="rename the frame"
        ) from None
