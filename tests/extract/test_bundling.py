"""Which bundles hold what is wanted: pure functions of wants and catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from strata.extract.bundling import Assigned, Want, assign_bundles, scene_grids, version_scenes
from strata.store.catalog import Catalog
from strata.store.key import Preprocess, digest
from strata.store.schema import Bundle, ViewRow, scene_digest, scene_geometry

GRID = (4, 6)


def want(scene: str, views: int = 2, seed: int = 0, geometry: int = 0, grid=GRID, start: int = 0) -> Want:
    rows = tuple(
        ViewRow(
            name=f"{p:03d}",
            position=p,
            image_digest=digest([scene, p, seed]),
            geometry_digest=digest([scene, p, geometry]),
        )
        for p in range(start, start + views)
    )
    return Want(
        scene=scene,
        digest=scene_digest([("seed", digest([scene, seed, views]))]),
        geometry=scene_geometry([digest([scene, geometry])]),
        grid=grid,
        rows=rows,
    )


@dataclass
class Store:
    """A catalog with what is complete and what is begun, and the steps of planning."""

    catalog: Catalog = field(default_factory=lambda: Catalog(Path("nowhere")))
    complete: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)

    def plan(self, wants: list[Want], packed: list[Want] | None = None) -> list[Assigned]:
        versions = version_scenes(wants, self.catalog)
        changed = {bundle.id: bundle for bundle, _ in versions.updated}
        views = {bundle.id: rows for bundle, rows in versions.updated}
        self.put({**self.catalog.bundles, **changed}, views)
        made = assign_bundles(
            wants,
            self.catalog,
            generations=versions.generations,
            available={w.scene: w.digest for w in packed or wants},
            complete=lambda bundle: bundle.id in self.complete,
            started=lambda bundle: bundle.id in self.begun,
        )
        new = {item.bundle.id: item.bundle for item in made if item.new}
        rows = {item.bundle.id: item.views for item in made if item.new}
        self.put({**self.catalog.bundles, **new}, rows)
        return made

    def put(self, bundles: dict[str, Bundle], views: dict[str, tuple[ViewRow, ...]]) -> None:
        known = {**self.catalog._views, **views}
        self.catalog = Catalog(Path("nowhere"), bundles.values())
        self.catalog.remember(known)

    def run(self, wants: list[Want], packed: list[Want] | None = None) -> list[Assigned]:
        made = self.plan(wants, packed)
        self.complete.update(item.bundle.id for item in made)
        return made


def scenes_of(assigned: Assigned) -> list[str]:
    return [row.id for row in assigned.bundle.scenes]


def test_new_scenes_are_grouped_in_natural_order():
    (made,) = Store().plan([want(f"toy/s{k}") for k in (10, 9, 2)])
    assert scenes_of(made) == ["toy/s2", "toy/s9", "toy/s10"]
    assert made.new
    assert [view.image_digest for view in made.views[:2]] == [digest(["toy/s2", p, 0]) for p in (0, 1)]


def test_grids_lie_apart():
    made = Store().plan([want("toy/a"), want("toy/b", grid=(6, 4)), want("toy/a", grid=(6, 4), start=2)])
    assert [(item.bundle.grid, scenes_of(item)) for item in made] == [
        ((4, 6), ["toy/a"]),
        ((6, 4), ["toy/a", "toy/b"]),
    ]


def test_large_scenes_have_bundles_of_their_own():
    made = Store().plan([want("toy/a"), want("toy/big", 256), want("toy/c", 255)])
    assert sorted(scenes_of(item) for item in made) == [["toy/a", "toy/c"], ["toy/big"]]


def test_no_bundle_exceeds_4096_views():
    made = Store().plan([want(f"toy/{k:02d}", 255) for k in range(33)])
    assert [len(item.bundle) for item in made] == [16 * 255, 16 * 255, 255]
    assert [scene for item in made for scene in scenes_of(item)] == [f"toy/{k:02d}" for k in range(33)]


def test_parts_of_a_long_scene_are_found_again():
    store = Store()
    parts = [want("toy/a", 4096), want("toy/a", 100, start=4096)]
    parts = [Want(**{**vars(p), "digest": parts[0].digest, "geometry": parts[0].geometry}) for p in parts]
    first = store.run(parts)
    assert [len(item.bundle) for item in first] == [4096, 100]
    again = store.run(parts)
    assert {item.bundle.id for item in again} == {item.bundle.id for item in first}
    assert not any(item.new for item in again)


def test_what_is_complete_is_left_alone():
    store = Store()
    (first,) = store.run([want("toy/a"), want("toy/b")])
    (again,) = store.run([want("toy/a"), want("toy/b")])
    assert (again.bundle, again.new) == (first.bundle, False)
    both = store.run([want("toy/a"), want("toy/b"), want("toy/c")])
    assert [(scenes_of(item), item.new) for item in both] == [
        (["toy/a", "toy/b"], False),
        (["toy/c"], True),
    ]


def test_half_of_a_bundle_takes_it_whole_and_less_makes_a_new_one():
    """Bundles that the catalog has from another key: nothing of them is computed for this one."""
    scenes = [want(f"toy/{name}") for name in "abcde"]
    for count, reused in ((5, True), (3, True), (2, False)):
        store = Store()
        store.plan(scenes)
        (made,) = store.plan(scenes[:count], packed=scenes)
        assert made.new is not reused, count
        assert len(made.bundle) == (10 if reused else 2 * count)


def test_a_bundle_with_a_scene_that_is_gone_is_not_reused():
    store, scenes = Store(), [want("toy/a"), want("toy/b"), want("toy/c")]
    store.plan(scenes)
    (made,) = store.plan(scenes[:2])
    assert (scenes_of(made), made.new) == (["toy/a", "toy/b"], True)


def test_a_bundle_with_a_scene_that_is_complete_elsewhere_is_not_reused():
    store, scenes = Store(), [want("toy/a"), want("toy/b"), want("toy/c"), want("toy/d")]
    store.plan(scenes)
    store.run(scenes[:1], packed=scenes)
    made = store.plan(scenes)
    assert [(scenes_of(item), item.new) for item in made] == [
        (["toy/a"], False),
        (["toy/b", "toy/c", "toy/d"], True),
    ]


def test_a_begun_bundle_is_finished_though_little_of_it_is_wanted():
    store, scenes = Store(), [want(f"toy/{name}") for name in "abcde"]
    (begun,) = store.plan(scenes)
    store.begun.add(begun.bundle.id)
    (made,) = store.plan(scenes[:1], packed=scenes)
    assert made.bundle.id == begun.bundle.id


def test_a_begun_bundle_is_finished_without_the_scene_that_changed():
    store, scenes = Store(), [want("toy/a"), want("toy/b")]
    (begun,) = store.plan(scenes)
    store.begun.add(begun.bundle.id)
    made = store.plan([want("toy/a"), want("toy/b", seed=1)])
    assert [(scenes_of(item), item.new) for item in made] == [
        (["toy/a", "toy/b"], False),
        (["toy/b"], True),
    ]
    assert store.catalog.stale() == ["toy/b"]


def test_a_begun_bundle_whose_scene_is_not_packed_any_more_waits():
    store, scenes = Store(), [want("toy/a"), want("toy/b")]
    (begun,) = store.plan(scenes)
    store.begun.add(begun.bundle.id)
    (made,) = store.plan(scenes[:1])
    assert (scenes_of(made), made.new) == (["toy/a"], True)


def test_a_begun_bundle_is_left_when_some_of_it_was_computed_elsewhere_meanwhile():
    store, scenes = Store(), [want("toy/a"), want("toy/b")]
    (begun,) = store.plan(scenes)
    store.begun.add(begun.bundle.id)
    store.run(scenes[:1])
    made = store.plan(scenes)
    assert [(scenes_of(item), item.new) for item in made] == [(["toy/a"], False), (["toy/b"], True)]
    (alone,) = store.plan(scenes[1:], packed=scenes)
    assert scenes_of(alone) == ["toy/b"]


def test_half_of_a_bundle_does_not_take_what_was_computed_elsewhere():
    store, scenes = Store(), [want("toy/a"), want("toy/b")]
    store.plan(scenes)
    store.run(scenes[:1])
    (made,) = store.plan(scenes[1:], packed=scenes)
    assert (scenes_of(made), made.new) == (["toy/b"], True)


def test_versions_count_up_and_come_back():
    store = Store()
    for seed, generation in ((0, 1), (1, 2), (1, 2), (2, 3), (0, 4), (2, 5)):
        store.run([want("toy/a", seed=seed)])
        assert store.catalog.generation("toy/a") == generation
        (current,) = store.catalog.current("toy/a")
        assert current[1].digest == want("toy/a", seed=seed).digest
    assert len(store.catalog.bundles) == 3


def test_mended_geometry_updates_the_record_in_place():
    store = Store()
    (before,) = store.run([want("toy/a"), want("toy/b")])
    versions = version_scenes([want("toy/a", geometry=1)], store.catalog)
    ((bundle, views),) = versions.updated
    assert versions.generations == {"toy/a": 1}
    assert bundle.id == before.bundle.id
    assert bundle.geometry != before.bundle.geometry
    assert [view.geometry_digest for view in views] == [
        *(digest(["toy/a", p, 1]) for p in (0, 1)),
        *(digest(["toy/b", p, 0]) for p in (0, 1)),
    ]
    (again,) = store.run([want("toy/a", geometry=1), want("toy/b")])
    assert (again.bundle.id, again.new) == (bundle.id, False)
    assert version_scenes([want("toy/a", geometry=1)], store.catalog).updated == ()


def test_grids_of_a_scene():
    sizes = [(640, 480), (480, 640), (640, 480)]
    assert scene_grids(sizes, Preprocess(), 14) == [(28, 37), (37, 28), (28, 37)]
    assert scene_grids(sizes, Preprocess(orient="scene"), 14) == [(28, 37)] * 3
    tied = [(480, 640), (640, 480)]
    assert scene_grids(tied, Preprocess(orient="scene"), 14) == [(37, 28)] * 2
    assert scene_grids([], Preprocess(orient="scene"), 14) == []


scene = st.builds(
    want,
    st.sampled_from([f"toy/s{k}" for k in (1, 2, 9, 10, 11)]),
    views=st.integers(1, 3),
    seed=st.integers(0, 1),
    geometry=st.integers(0, 1),
)
step = st.tuples(
    st.lists(scene, max_size=5, unique_by=lambda w: w.scene),  # scenes that are packed anew
    st.sets(st.sampled_from([1, 2, 9, 10, 11]), min_size=1),  # scenes that are wanted
    st.sampled_from(["finish", "begin", "stop", "lose"]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(step, max_size=8))
def test_whatever_changes_each_row_is_held_once_and_nothing_complete_is_computed(steps):
    store, packed = Store(), {}
    for edits, numbers, end in steps:
        packed.update({w.scene: w for w in edits})
        wants = [w for name, w in packed.items() if int(name[5:]) in numbers]
        before = set(store.complete)
        made = store.plan(wants, packed=list(packed.values()))
        holders = {
            w.place: [
                item
                for item in made
                if any(r.id == w.scene and r.digest == w.digest for r in item.bundle.scenes)
            ]
            for w in wants
        }
        for items in holders.values():
            assert items, "each wanted row is held"
            assert len(items) == 1 or all(item.bundle.id in before for item in items), "and computed once"
        for item in made:
            assert len({row.id for row in item.bundle.scenes}) == len(item.bundle.scenes)
            if item.bundle.id in before:
                continue
            for row in item.bundle.scenes:
                have = [b for b, r in store.catalog.rows[row.id] if b.id in before and r.digest == row.digest]
                assert not have or packed[row.id].digest != row.digest, "it is complete elsewhere"
        for w in wants:
            (bundle, row), *more = [
                (b, r) for b, r in store.catalog.current(w.scene) if b.id == holders[w.place][0].bundle.id
            ]
            assert not more
            assert row.digest == w.digest
            assert row.geometry == w.geometry
            assert store.catalog.views(bundle)[row.start : row.stop] == w.rows
        if end == "finish":
            store.complete.update(item.bundle.id for item in made)
        elif end == "begin":
            store.begun.update(item.bundle.id for item in made)
        elif end == "lose" and packed:
            packed.pop(min(packed))
