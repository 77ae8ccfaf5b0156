"""The catalog: which views of which scenes lie in which bundle, and which of them are current.

One small document per bundle, and beside it one with the bundle's views, read only for the scenes
that are asked for. A scene that was packed again has rows of a higher generation; only the highest
is current, the others are stale.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import cached_property
from typing import Any

from ..errors import StoreError
from .atomic import read_json
from .documents import write_document
from .remote.path import Place, written
from .schema import Bundle, SceneRow, ViewRow

_GLOB = re.compile(r"[*?\[]")


class Catalog:
    """All bundles of a store, read once.

    Args:
        folder: the store's `catalog/`.
        bundles: the records; `read` reads them from the folder.
    """

    def __init__(self, folder: Place, bundles: Iterable[Bundle] = ()) -> None:
        self.folder = folder
        self.bundles: dict[str, Bundle] = {bundle.id: bundle for bundle in bundles}
        self._views: dict[str, tuple[ViewRow, ...]] = {}
        self._documents: dict[str, list[dict[str, Any]]] = {}

    @classmethod
    def read(cls, folder: Place) -> Catalog:
        """Every record of the folder, in order of bundle id.

        Raises:
            StoreError: a record is damaged.
        """
        paths = sorted(path for path in folder.glob("*.json") if not path.name.endswith(".views.json"))
        found = [_record(path) for path in paths]
        return cls(folder, [bundle for bundle in found if bundle is not None])

    @cached_property
    def rows(self) -> dict[str, list[tuple[Bundle, SceneRow]]]:
        """All rows of a scene id, of every generation, in order of bundle id."""
        rows: dict[str, list[tuple[Bundle, SceneRow]]] = defaultdict(list)
        for bundle in self.bundles.values():
            for row in bundle.scenes:
                rows[row.id].append((bundle, row))
        return rows

    def scene_ids(self, pattern: str | None = None) -> list[str]:
        """Ids in natural order.

        Args:
            pattern: glob over ids `<dataset>/<scene>`, or over scene names alone; None = all.
        """
        if pattern is None:
            return sorted(self.rows, key=natural)
        if not _GLOB.search(pattern):
            # One scene of very many costs a look into a table and no comparison with the others.
            return sorted([pattern] if pattern in self.rows else self._by_name.get(pattern, []), key=natural)
        fits = re.compile(translate(pattern)).match
        return sorted((sid for sid in self.rows if fits(sid) or fits(sid.partition("/")[2])), key=natural)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Scene ids by scene name; several datasets may have the same name."""
        ids: dict[str, list[str]] = defaultdict(list)
        for scene_id in self.rows:
            ids[scene_id.partition("/")[2]].append(scene_id)
        return ids

    def generation(self, scene_id: str) -> int:
        """The current generation of a scene, 0 when it was never planned."""
        return max((row.generation for _, row in self.rows.get(scene_id, ())), default=0)

    def current(self, scene_id: str) -> list[tuple[Bundle, SceneRow]]:
        """The current rows of a scene, one per bundle that holds it."""
        newest = self.generation(scene_id)
        return [(bundle, row) for bundle, row in self.rows.get(scene_id, ()) if row.generation == newest]

    def stale(self) -> list[str]:
        """Ids of scenes that have rows of an older generation, too."""
        return sorted(sid for sid, rows in self.rows.items() if len({row.generation for _, row in rows}) > 1)

    def views(self, bundle: Bundle) -> tuple[ViewRow, ...]:
        """The views of a bundle, one per row.

        Raises:
            StoreError: the document is missing or does not fit the bundle.
        """
        if bundle.id not in self._views:
            self._views[bundle.id] = self._parsed_views(bundle, 0, len(bundle))
        return self._views[bundle.id]

    def scene_views(self, bundle: Bundle, row: SceneRow) -> tuple[ViewRow, ...]:
        """The views of one scene in a bundle; the bundle's others are not parsed.

        Raises:
            StoreError: the document is missing or does not fit the bundle, or one of these views is damaged.
        """
        if bundle.id in self._views:
            return self._views[bundle.id][row.start : row.stop]
        return self._parsed_views(bundle, row.start, row.stop)

    def _parsed_views(self, bundle: Bundle, start: int, stop: int) -> tuple[ViewRow, ...]:
        path = self.folder / f"{bundle.id}.views.json"
        if bundle.id not in self._documents:
            document = read_json(path)
            views = _checked(path, lambda: list(document["views"]))
            if len(views) != len(bundle):
                raise _damaged(path, f"{len(views)} views for {len(bundle)} rows")
            self._documents[bundle.id] = views
        some = self._documents[bundle.id][start:stop]
        return _checked(path, lambda: tuple(map(ViewRow.from_dict, some)))

    def remember(self, views: Mapping[str, tuple[ViewRow, ...]]) -> None:
        """Take views of bundles that are not on disk yet."""
        self._views.update(views)

    def write(self, bundle: Bundle, views: Sequence[ViewRow]) -> None:
        """Put a record on disk, the views first: a record never names views that are not there."""
        folder = written(self.folder)
        write_document(folder / f"{bundle.id}.views.json", {"views": [view.to_dict() for view in views]})
        write_document(folder / f"{bundle.id}.json", bundle.to_dict())
        self.bundles[bundle.id] = bundle
        self._views[bundle.id] = tuple(views)
        self.__dict__.pop("rows", None)
        self.__dict__.pop("_by_name", None)


def natural(text: str) -> list[Any]:
    """Sort key in which `scene2` comes before `scene10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _record(path: Place) -> Bundle | None:
    """The record; None where `store gc` removed it after it was listed."""
    try:
        return _parsed(path, read_json(path))
    except StoreError:
        if path.exists():
            raise
        return None


def _parsed(path: Place, document: Any) -> Bundle:
    return _checked(path, lambda: Bundle.from_dict(path.stem, document))


def _checked(path: Place, parse: Any) -> Any:
    try:
        return parse()
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        text = error.what if isinstance(error, StoreError) else error
        raise _damaged(path, f"{type(error).__name__}: {text}") from None


def _damaged(path: Place, why: str) -> StoreError:
    return StoreError(
        "a record of the catalog is damaged.",
        where=path,
        why=why,
        fix="`strata store verify PATH --repair` drops it, and the same extraction writes it anew",
    )
