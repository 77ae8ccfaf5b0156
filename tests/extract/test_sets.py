"""View sets: the walk, the golden draws, the file."""

# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false

import json
from itertools import pairwise

import numpy as np
import pytest
from strata.configs.schema import SetsConfig
from strata.errors import ConfigError, SetsError
from strata.extract.scenes.open import open_scenes
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai_write import write_wai
from strata.extract.sets import read_sets, sample_sets, walk, write_sets
from strata.extract.sets_command import ls, make

OPTIONS = {"views": 4, "count": 20, "threshold": 0.25, "seed": 777}


def chain(views):
    """Covisibility of views in a row: neighbours see each other, and nobody else."""
    return (np.eye(views) + 0.5 * np.eye(views, k=1) + 0.5 * np.eye(views, k=-1)).astype(np.float32)


def sampled(covisibility, scene_id="d/s", **changes):
    names = [str(view) for view in range(len(covisibility))]
    return sample_sets(scene_id, names, [f"{view:064x}" for view in range(len(names))], covisibility,
                       **{**OPTIONS, **changes})  # fmt: skip


def members(sets):
    return [view_set.members for view_set in sets]


def test_golden_draws_of_mapanything(shared):
    golden = json.loads((shared / "golden" / "wai" / "golden.json").read_text())["views_seed777"]
    source = open_scenes(shared / "golden" / "wai" / "eth3d")
    assert source.ids() == ["eth3d/toy_a", "eth3d/toy_b"]
    for idx, scene in enumerate(source):
        sets, dropped = sampled(scene.covisibility, scene.id, count=3, sampler="mapanything", scene_idx=idx)
        assert members(sets) == [tuple(golden[f"idx{idx}_off{k}"]) for k in range(3)]
        assert dropped == 0


def test_mapanything_repeats_views_where_they_are_short():
    (few,), _ = sampled(np.ones((3, 3), np.float32), count=1, sampler="mapanything")
    assert len(few.members) == 4
    (all_of_them,), _ = sampled(chain(4), count=1, sampler="mapanything")
    assert sorted(all_of_them.members) == ["0", "1", "2", "3"]
    (stuck,), _ = sampled(
        np.kron(np.eye(3), np.ones((2, 2))).astype(np.float32), count=1, sampler="mapanything"
    )
    assert len(stuck.members) == 4
    assert len(set(stuck.members)) <= 2


def test_a_walk_stays_among_neighbours():
    sets, _ = sampled(chain(9))
    for view_set in sets:
        order = sorted(map(int, view_set.members))
        assert len(set(order)) == 4
        assert order == list(range(order[0], order[0] + 4))
        first, second = view_set.members[:2]
        assert abs(int(first) - int(second)) == 1


def test_a_short_walk_gives_a_smaller_set_without_repeats():
    pairs = np.kron(np.eye(3), np.full((2, 2), 0.9)).astype(np.float32)
    sets, dropped = sampled(pairs)
    assert {len(view_set.members) for view_set in sets} == {2}
    assert all(len(set(view_set.members)) == 2 for view_set in sets)
    assert len(sets) + dropped == 20
    assert len(set(members(sets))) == len(sets) <= 6


def test_strangers_make_no_sets():
    assert sampled(np.eye(5, dtype=np.float32)) == ([], 0)


def test_the_threshold_is_strict_symmetric_and_relative_to_the_own_share():
    lopsided = np.array([[0.5, 0.4], [0.0, 0.8]], np.float32)
    # The mean of both directions over the own share: 0.2 / 0.5 = 0.4 from view 0, 0.25 from view 1.
    rng = np.random.default_rng(0)
    lengths = {threshold: len(walk(lopsided, 2, threshold, rng)) for threshold in (0.24, 0.39, 0.41)}
    assert lengths == {0.24: 2, 0.39: 2, 0.41: 1}


def test_another_scene_changes_no_set():
    alone, _ = sampled(chain(9))
    again, _ = sampled(chain(9), scene_idx=3)
    assert alone == again
    assert members(sampled(chain(9), scene_id="d/t")[0]) != members(alone)
    assert members(sampled(chain(9), seed=778)[0]) != members(alone)
    fewer = members(sampled(chain(9), count=5)[0])
    assert members(alone)[: len(fewer)] == fewer


def test_sets_carry_digests_and_their_own_covisibility():
    random = np.random.default_rng(0).uniform(0.3, 1, (6, 6)).astype(np.float32)
    sets, _ = sampled(random)
    for view_set in sets:
        chosen = [int(name) for name in view_set.members]
        assert view_set.images == tuple(f"{view:064x}" for view in chosen)
        np.testing.assert_allclose(view_set.covisibility, random[np.ix_(chosen, chosen)], atol=5.1e-5)
        assert view_set.covisibility[0][1] == round(view_set.covisibility[0][1], 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "mapanythin"}, "did you mean mapanything"),
        ({"views": 1}, "set_views=1 is too small"),
        ({"count": 0}, "set_count=0 is too small"),
        ({"sampler": "mapanything", "seed": 0}, "set_seed=0 has no meaning"),
    ],
)
def test_options_that_make_no_sets(changes, said):
    with pytest.raises(ConfigError) as caught:
        sampled(chain(5), **changes)
    assert said in str(caught.value)


def test_the_file_comes_back_and_equal_sets_give_equal_bytes(tmp_path):
    sets, dropped = sampled(chain(9))
    for name in ("a.json", "b.json"):
        write_sets(
            tmp_path / "new" / name, sets, sampler=OPTIONS, skipped=[("d/t", "why")], dropped_equal=dropped
        )
    assert read_sets(tmp_path / "new" / "a.json") == sets
    assert (tmp_path / "new" / "a.json").read_bytes() == (tmp_path / "new" / "b.json").read_bytes()
    document = json.loads((tmp_path / "new" / "a.json").read_text())
    assert list(document) == ["format", "version", "sampler", "sets", "skipped", "dropped_equal", "crc32c"]
    assert document["skipped"] == [{"scene": "d/t", "reason": "why"}]
    assert (document["format"], document["version"], document["dropped_equal"]) == ("strata-sets", 1, dropped)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "b.json"]
    write_sets(tmp_path / "none.json", [], sampler={})
    assert read_sets(tmp_path / "none.json") == []


def _broken(edit):
    def apply(document):
        edit(document)
        return json.dumps(document)

    return apply


@pytest.mark.parametrize(
    ("breaking", "why"),
    [
        (lambda document: "{", "not JSON"),
        (lambda document: "[]", "format None"),
        (_broken(lambda document: document.update(version=2)), "version 2"),
        (_broken(lambda document: document.update(sets={})), "format strata-sets"),
        (_broken(lambda document: document["sets"].append(3)), "set 1: "),
        (_broken(lambda document: document["sets"][0].pop("members")), "'members' is missing"),
        (_broken(lambda document: document["sets"][0]["members"].append("x")), "set 0: "),
        (_broken(lambda document: document["sets"][0]["members"].reverse()), "digest"),
        (_broken(lambda document: document["sets"][0].update(scene="../x/y")), "not a scene id"),
        (_broken(lambda document: document["sets"][0].update(covisibility=[["a"]])), "set 0: "),
    ],
)
def test_malformed_files_are_refused(tmp_path, breaking, why):
    path = tmp_path / "sets.json"
    write_sets(path, sampled(chain(9))[0][:1], sampler=OPTIONS)
    path.write_text(breaking(json.loads(path.read_text())))
    with pytest.raises(SetsError) as caught:
        read_sets(path)
    assert why in caught.value.why
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(SetsError, match="No such file") as caught:
        read_sets(tmp_path / "sets.json")
    assert "strata sets make" in caught.value.fix


@pytest.fixture
def rooms(tmp_path):
    for scene in SyntheticSource(3, views=6, width=32, height=24):
        write_wai(scene, tmp_path / "synthetic" / scene.name)
    return tmp_path


def test_make_skips_with_reasons_and_ls_counts(rooms, console):
    for file in (rooms / "synthetic" / "room_1" / "covisibility" / "v0").iterdir():
        file.unlink()
    config = SetsConfig(scenes=str(rooms), out=str(rooms / "sets.json"), set_count=6)
    assert make(config, console) == 0
    document = json.loads((rooms / "sets.json").read_text())
    assert document["skipped"] == [{"scene": "synthetic/room_1", "reason": "no covisibility"}]
    assert document["sampler"] == {
        "views": 4,
        "count": 6,
        "threshold": 0.025,
        "seed": 777,
        "sampler": "strata",
    }
    sets = read_sets(rooms / "sets.json")
    assert {view_set.scene for view_set in sets} == {"synthetic/room_0", "synthetic/room_2"}
    view = open_scenes(rooms).scene(sets[0].scene).views[int(sets[0].members[0])]
    assert sets[0].images[0] == view.image_digest
    assert ls(rooms / "sets.json", console) == 0
    printed = console.file.getvalue()
    assert "skipped synthetic/room_1: no covisibility" in printed
    assert "synthetic/room_0  6" in printed
    assert make(config, console) == 0
    assert read_sets(rooms / "sets.json") == sets


def test_sets_that_are_smaller_than_asked_for_are_counted_with_their_reasons(rooms, console):
    words = {"scenes": str(rooms), "out": str(rooms / "sets.json"), "set_count": 2}
    assert make(SetsConfig(**words, set_views=30), console) == 0
    line, _ = console.file.getvalue().splitlines()
    assert line.startswith("6 of 6 sets have fewer views than asked for, since there are no 30 views: ")
    assert line.endswith("synthetic/room_0 (6 views), synthetic/room_1 (6 views), synthetic/room_2 (6 views)")
    assert make(SetsConfig(**words, set_views=6, set_threshold=0.7), console) == 0
    sizes = [len(view_set.members) for view_set in read_sets(rooms / "sets.json")]
    small = sum(size < 6 for size in sizes)
    assert small > 0
    assert (
        f"{small} of {len(sizes)} sets have fewer views than asked for, since no walk of 6 views stays "
        in (console.file.getvalue())
    )
    before = len(console.file.getvalue())
    assert make(SetsConfig(**words, set_views=2), console) == 0
    assert "fewer" not in console.file.getvalue()[before:]


@pytest.mark.parametrize("sampler", ["strata", "mapanything"])
def test_one_scene_alone_has_the_sets_it_has_among_others(rooms, console, sampler):
    words = {"scenes": str(rooms), "out": str(rooms / "sets.json"), "sampler": sampler, "set_count": 3}
    make(SetsConfig(**words), console)
    every = read_sets(rooms / "sets.json")
    make(SetsConfig(**words, scene="room_2"), console)
    assert read_sets(rooms / "sets.json") == [one for one in every if one.scene == "synthetic/room_2"]


def test_make_goes_on_past_a_broken_scene_and_says_so(rooms, console):
    (rooms / "synthetic" / "room_0" / "images" / "0001.png").unlink()
    config = SetsConfig(scenes=str(rooms), out=str(rooms / "sets.json"))
    assert make(config, console) == 1
    assert "skipped synthetic/room_0: broken: synthetic/room_0 lacks 1 file" in console.file.getvalue()
    assert len({view_set.scene for view_set in read_sets(rooms / "sets.json")}) == 2


def test_make_seeds_mapanything_by_the_scenes_place_in_its_dataset(rooms, console):
    config = SetsConfig(
        scenes=str(rooms), out=str(rooms / "sets.json"), sampler="mapanything", set_count=1, set_views=6
    )
    assert make(config, console) == 0
    orders = [[int(name) for name in view_set.members] for view_set in read_sets(rooms / "sets.json")]
    assert orders == [np.random.default_rng(777 + idx).permutation(6).tolist() for idx in range(3)]
    assert all(a != b for a, b in pairwise(orders))


def test_no_sets_at_all_is_an_error(rooms, console):
    with pytest.raises(SetsError, match="no scene has a view set") as caught:
        make(SetsConfig(scenes=str(rooms / "synthetic" / "room_0" / "images")), console)
    assert caught.value.why == "no covisibility"
