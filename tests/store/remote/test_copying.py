"""Parts of stores are copied whole and verified, and are stores themselves."""

from __future__ import annotations

import shutil

import fsspec
import pytest
from strata.cli import app
from strata.errors import ConfigError, LayerError, RemoteError, SelectionError, StoreError
from strata.extract.store_lists import keep_splits
from strata.store.atomic import read_json, write_json
from strata.store.feature_store import FeatureStore
from strata.store.kept_lists import declare_lists, named_lists
from strata.store.remote import transfer
from strata.store.remote.part_files import commit_order, part_files
from strata.store.remote.subset import Part
from typer.testing import CliRunner


@pytest.fixture
def part(tmp_path):
    return tmp_path / "part.zarr"


def test_all_of_a_store_comes_and_goes_with_the_same_bytes(
    filled, s3_environment, push_store, pull_store, part, tree, everything
):
    said = push_store(filled, "s3://bucket/copied/f.zarr")
    assert "MB of them copied now" in said
    assert "contents.json" in said
    pull_store("s3://bucket/copied/f.zarr", part)
    assert tree(part) == tree(filled)
    assert everything(FeatureStore.open(part)) == everything(FeatureStore.open(filled))


@pytest.mark.parametrize(
    ("words", "layers", "scenes"),
    [
        (["layers=norm"], ("norm",), ["toy/a", "toy/b", "toy/c"]),
        (["scene=c", "encoder=colour"], ("block0", "norm"), ["toy/c"]),
        (["scene=a"], ("block0", "norm"), ["toy/a", "toy/b"]),  # they share a bundle
        (["split=test", "dataset=toy", "layers=last"], ("norm",), ["toy/a", "toy/b"]),
    ],
    ids=str,
)
def test_words_name_a_part(filled, in_memory, pull_store, part, tree, words, layers, scenes):
    pull_store(in_memory, part, *words)
    selection = FeatureStore.open(part).select("colour")
    assert (selection.layers, list(selection.scenes)) == (layers, scenes)
    whole = FeatureStore.open(filled).select("colour", layers=layers)
    for scene in scenes:
        assert selection.scene(scene).load()[0].tokens["norm"].tobytes() == (
            whole.scene(scene).load()[0].tokens["norm"].tobytes()
        )
        assert next(selection.scene(scene).blocks()).geometry().valid.any()
    assert tree(part).items() <= tree(filled).items()
    assert len(tree(part)) < len(tree(filled))


def test_what_comes_along_of_the_views(in_memory, pull_store, part):
    pull_store(in_memory, part, "views=none")
    block = next(FeatureStore.open(part).select("colour").blocks())
    assert block.token_points().valid.any()
    with pytest.raises(SelectionError, match="no depth"):
        block.geometry()
    pull_store(in_memory, part, "views=geometry")
    block = next(FeatureStore.open(part).select("colour").blocks())
    assert block.geometry().valid.any()
    with pytest.raises(SelectionError, match="no image"):
        block.images()
    with pytest.raises(ConfigError, match="views=some"):
        pull_store(in_memory, part, "views=some")


def test_what_is_there_is_not_copied_again(filled, in_memory, pull_store, part, tree):
    pull_store(in_memory, part, "layers=norm")
    assert "0.0 MB of them copied now" in pull_store(in_memory, part, "layers=norm")
    next(part.glob("features/*/*/norm/tokens/c.*")).unlink()
    cut, changed = next(part.glob("points/*/*/token_valid/c.*")), next(part.glob("catalog/*.views.json"))
    cut.write_bytes(cut.read_bytes()[:-1])
    changed.write_bytes(changed.read_bytes().replace(b"000", b"009", 1))
    pull_store(in_memory, part)
    assert tree(part) == tree(filled)


def test_lists_that_were_here_are_missed_after_a_pull_as_before(filled, pull_store, part):
    pull_store(filled, part)
    keep_splits(part, {"mine": ("synthetic/a",)})
    declare_lists(part)
    pull_store(filled, part)
    assert "mine" in named_lists(part)["splits"]
    assert "0.0 MB of them copied now" in pull_store(filled, part)


def test_an_interrupted_copy_is_not_visible_and_goes_on(
    filled, in_memory, pull_store, part, tree, monkeypatch
):
    copied, count = transfer._copied, []

    def stop(source, target, path):
        count.append(path)
        if len(count) > 40:
            raise KeyboardInterrupt
        return copied(source, target, path)

    monkeypatch.setattr(transfer, "_copied", stop)
    with pytest.raises(KeyboardInterrupt):
        pull_store(in_memory, part)
    assert any(part.rglob("c.*"))
    with pytest.raises(StoreError, match="not a store"):
        FeatureStore.open(part)
    monkeypatch.setattr(transfer, "_copied", copied)
    pull_store(in_memory, part)
    assert tree(part) == tree(filled)


@pytest.mark.parametrize("array", ["norm/tokens", "norm/prefix", "depth_m"])
def test_what_is_damaged_is_neither_pulled_nor_pushed(
    filled, in_memory, pull_store, push_store, part, tmp_path, array
):
    files = fsspec.filesystem("memory").store
    name = next(path for path in sorted(files) if f"/{array}/c." in path)
    whole = files[name].getvalue()
    files[name].seek(0)
    files[name].write(bytes([whole[0] ^ 4]))
    with pytest.raises(StoreError, match="arrived damaged") as caught:
        pull_store(in_memory, part)
    assert caught.value.where.endswith(name.rpartition("f.zarr/")[2])
    assert not (part / name.rpartition("f.zarr/")[2]).exists()
    copy = tmp_path / "copy.zarr"
    shutil.copytree(filled, copy)
    (copy / name.rpartition("f.zarr/")[2]).write_bytes(files[name].getvalue())
    with pytest.raises(StoreError, match="checksum"):
        push_store(copy, "memory://other/f.zarr")
    assert not any(path.startswith("/other") and path.endswith("zarr.json") for path in files)


def test_a_larger_file_is_known_by_its_end(tmp_path):
    for name, last in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode() + bytes(100_000) + last)
    assert transfer.same(tmp_path / "a", tmp_path / "c", "x")
    assert not transfer.same(tmp_path / "a", tmp_path / "b", "x")
    (tmp_path / "c" / "x").write_bytes(b"a" + bytes(100) + b"1")
    assert not transfer.same(tmp_path / "a", tmp_path / "c", "x")


def test_what_is_new_is_pushed_beside_what_was_there(pipeline, push_store, cache):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    push_store(pipeline.root, "memory://grown/f.zarr")
    pipeline.add("b")
    pipeline.extract()
    push_store(pipeline.root, "memory://grown/f.zarr")
    here = FeatureStore.open(pipeline.root).select("colour", layers=["norm"])
    there = FeatureStore.open("memory://grown/f.zarr", cache=cache).select("colour", layers=["norm"])
    assert there.fingerprint == here.fingerprint
    assert there.load()[0].tokens["norm"].tobytes() == here.load()[0].tokens["norm"].tobytes()


def test_versions_that_do_not_go_together_are_not_mixed(filled, in_memory, pull_store, part):
    pull_store(in_memory, part, "scene=c")
    record = next(path for path in part.glob("catalog/*.json") if not path.name.endswith(".views.json"))
    document = read_json(record)
    document["scenes"][0]["digest"] = "0" * 64
    write_json(record, document)
    with pytest.raises(StoreError, match="toy/c that do not go together") as caught:
        pull_store(in_memory, part)
    assert caught.value.fix == "copy into a new place"


def test_a_stale_scene_beside_a_wanted_one_stays_stale(
    pipeline, new_view, push_store, pull_store, part, cache
):
    import numpy as np

    for name in ("a", "b"):
        pipeline.add(name)
    pipeline.extract()
    rng = np.random.default_rng(5)
    pipeline.change("b", lambda views: [new_view("000", rng, 24, 16), *views[1:]])
    pipeline.extract()
    push_store(pipeline.root, "memory://stale/f.zarr")
    pull_store("memory://stale/f.zarr", part, "scene=a")
    assert FeatureStore.open(part).select("colour").scenes == ("toy/a",)


def test_what_is_out_of_date_is_named_and_left_out(
    pipeline, colour, new_view, push_store, pull_store, part, tmp_path
):
    import numpy as np

    pipeline.add("a")
    pipeline.extract()
    pipeline.extract(encoder=colour(frozenset({"token_point_world"})))
    rng = np.random.default_rng(5)
    pipeline.change("a", lambda views: [new_view("000", rng, 24, 16), *views[1:]])
    pipeline.extract()
    there = tmp_path / "there.zarr"
    said = push_store(pipeline.root, str(there), code=1)
    (left,) = [line for line in said.splitlines() if line.startswith("left out")]
    assert left.startswith("left out of points@")
    assert "toy/a changed since these features were extracted; extract them again" in left
    assert "1 key (1 key left out, in whole or in part), 1 scene, " in said
    assert [key.key.encoder for key in FeatureStore.open(there).keys()] == ["colour"]
    assert "left out" not in push_store(pipeline.root, str(there), "encoder=colour")
    assert "left out of points@" in pull_store(pipeline.root, part, code=1)
    # Also of a key whose other scenes come.
    pipeline.add("b")
    pipeline.extract(encoder=colour(frozenset({"token_point_world"})), scene="toy/b")
    said = pull_store(pipeline.root, tmp_path / "both.zarr", code=1)
    assert "2 keys (1 key left out, in whole or in part), 2 scenes, " in said


def test_a_layer_that_one_key_lacks_keeps_no_other_behind(pipeline, colour, pull_store, part):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    pipeline.extract(encoder=colour(frozenset({"token_point_world"})), layers=["block0"])
    said = pull_store(pipeline.root, part, "layers=block0", code=1)
    assert "left out of colour@" in said
    assert [key.key.encoder for key in FeatureStore.open(part).keys()] == ["points"]


def test_a_key_without_the_wanted_scenes_is_no_loss(pipeline, colour, pull_store, part):
    for name in ("a", "b"):
        pipeline.add(name)
    pipeline.extract(scene="toy/a")
    pipeline.extract(encoder=colour(frozenset({"token_point_world"})))
    assert "left out" not in pull_store(pipeline.root, part, "scene=b")


def test_scenes_that_come_along_are_said_before(in_memory, filled, pull_store, part):
    said = pull_store(in_memory, part, "scene=a").splitlines()
    assert said[0].startswith("with the 1 scene asked for come 1 more, which weigh about 0.0 of 0.1 MB")
    assert said[0].endswith(": toy/b; they lie in the same bundles, which are copied whole")
    files = part_files(FeatureStore.open(filled), Part(scene="a"))
    assert (files.scenes, files.beside) == (("toy/a",), ("toy/b",))
    inside = [path for path in files.paths if path.startswith(("features", "pixels", "points"))]
    size = sum((filled / path).stat().st_size for path in inside if path.count("/") > 2)
    assert files.beside_bytes == pytest.approx(size / 2, abs=len(inside))
    assert "asked for" not in pull_store(in_memory, part, "scene=c")


@pytest.mark.parametrize("to", ["memory://x/f.zarr", "simplecache::memory://x/f.zarr"])
def test_a_place_that_ends_with_the_process_is_refused(filled, to):
    result = CliRunner().invoke(app, ["store", "push", str(filled), f"to={to}"])
    assert result.exit_code == 2
    assert "ConfigError: a store in the memory of this process" in result.output


def test_nothing_fits(in_memory, pull_store, push_store, filled, part, tmp_path):
    for words, kind in (
        (["scene=zzz"], SelectionError),
        (["layers=block1"], LayerError),
        (["encoder=x"], StoreError),
    ):
        with pytest.raises(kind):
            pull_store(in_memory, part, *words)
    assert not part.exists()
    part.write_text("mine")
    with pytest.raises(StoreError, match="taken"):
        pull_store(in_memory, part)
    with pytest.raises(StoreError, match="not a store"):
        push_store(tmp_path / "none", "memory://x/f.zarr")


def test_pushing_into_a_bucket_that_is_not_there(filled, s3_environment, push_store):
    with pytest.raises(RemoteError, match="no such bucket"):
        push_store(filled, "s3://no-such-bucket/f.zarr", "layers=norm")


def test_the_commands(filled, s3_environment, part):
    for words in (
        ["push", f"store={filled}", "to=s3://bucket/commands/f.zarr"],
        ["contents", "s3://bucket/commands/f.zarr"],
        ["pull", "s3://bucket/commands/f.zarr", f"out={part}", "layers=norm"],
        ["ls", str(part)],
    ):
        result = CliRunner().invoke(app, ["store", *words])
        assert result.exit_code == 0, result.output
    assert "norm" in result.output
    assert "block0" not in result.output


def test_what_makes_others_visible_comes_last():
    paths = [
        "zarr.json", "features/zarr.json", "features/k/zarr.json", "features/k/b/zarr.json",
        "features/k/b/norm/zarr.json", "features/k/b/norm/tokens/zarr.json",
        "features/k/b/norm/prefix/zarr.json", "features/k/b/norm/tokens/c.0.0.0.0",
        "catalog/b.json", "catalog/b.views.json", "sets/x.json",
    ]  # fmt: skip
    order = [path for group in commit_order(paths) for path in group]
    assert sorted(order) == sorted(paths)
    assert order[:3] == ["catalog/b.views.json", "features/k/b/norm/tokens/c.0.0.0.0", "sets/x.json"]
    assert order[3:] == ["catalog/b.json", *[paths[i] for i in (6, 5, 4, 3, 2, 1, 0)]]
