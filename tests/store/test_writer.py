"""Groups: invisible until the last document, units that are done, labels that follow renamed frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from strata.errors import StoreError
from strata.store.arrays import ArraySpec
from strata.store.group import StoredGroup
from strata.store.layout import GroupSpec
from strata.store.schema import SceneViews, ViewRow, make_bundle
from strata.store.writer import GroupWriter, UnitBuffer, row_labels, write_if_changed

VIEWS = 5
LABELS = ([f"toy/a/{i}" for i in range(VIEWS)], ["toy/a"] * VIEWS)
WHOLE = {"K_px": np.arange(VIEWS * 9.0).reshape(VIEWS, 3, 3)}


def spec(labels: bool = False, unit: int = 2) -> GroupSpec:
    tokens = ArraySpec(
        shape=(VIEWS, 2, 3), dims=("view", "row", "channel"), dtype="float16", unit=unit, sharded=True
    )
    prefix = ArraySpec(
        shape=(VIEWS, 3), dims=("view", "prefix_token"), dtype="float16", unit=unit, sharded=False
    )
    matrix = ArraySpec(
        shape=(VIEWS, 3, 3), dims=("view", "k", "l"), dtype="float64", unit=VIEWS, sharded=False
    )
    return GroupSpec(
        folder="features/bundle/block0",
        arrays={"tokens": tokens, "prefix": prefix, "K_px": matrix},
        whole=("K_px",),
        attributes={"scale": 2},
        labels=labels,
    )


def row(i: int) -> dict[str, np.ndarray]:
    return {"tokens": np.full((2, 3), i, np.float16), "prefix": np.full(3, 10 + i, np.float16)}


def write_unit(writer: GroupWriter, unit: int, failed: tuple[int, ...] = ()) -> int:
    buffer = UnitBuffer(writer.spec, unit)
    for i in writer.spec.arrays["tokens"].rows(unit):
        assert not buffer.complete
        buffer.add(i, None if i in failed else row(i))
    assert buffer.complete
    return writer.write(buffer)


def test_a_group_is_visible_after_its_commit_alone(tmp_path):
    writer = GroupWriter(tmp_path, spec())
    assert (writer.started, writer.missing_units()) == (False, [0, 1, 2])
    for unit in (2, 0, 1):
        assert not StoredGroup(writer.folder).committed
        with pytest.raises(StoreError, match="before all its shards"):
            writer.commit(LABELS, whole=WHOLE)
        write_unit(writer, unit)
        assert writer.started
    assert writer.missing_units() == []
    writer.commit(LABELS, whole=WHOLE, attributes={"tokens": {"missing": {}}})
    assert writer.committed
    group = StoredGroup(writer.folder)
    assert group.attributes == {"scale": 2}
    assert group.read("tokens", range(VIEWS))[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert group.read("prefix", [4, 0])[:, 0].tolist() == [14, 10]
    assert (group.read("K_px", [3])[0] == WHOLE["K_px"][3]).all()


def test_the_groups_document_is_the_last_write(tmp_path, monkeypatch):
    import os

    renamed, rename = [], os.replace
    monkeypatch.setattr(
        "strata.store.atomic.os.replace", lambda a, b: (renamed.append(Path(b)), rename(a, b))
    )
    writer = GroupWriter(tmp_path, spec())
    for unit in range(3):
        write_unit(writer, unit)
    writer.commit(LABELS, whole=WHOLE)
    assert renamed[-1] == writer.folder / "zarr.json"
    assert renamed[-2] == writer.folder / "tokens" / "zarr.json"


def test_shards_and_their_names_are_on_the_disk_before_the_group_is_seen(tmp_path, monkeypatch):
    import os

    writer, steps, sync, rename = GroupWriter(tmp_path, spec()), [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (steps.append(os.readlink(f"/proc/self/fd/{h}")), sync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(("seen", str(b))), rename(a, b)))
    for unit in range(3):
        write_unit(writer, unit)
    shards = len(steps)
    writer.commit(LABELS, whole=WHOLE)
    before = steps[shards : steps.index(("seen", str(writer.folder / "zarr.json")))]
    above = [writer.folder / name for name in writer.spec.arrays]
    above += [writer.folder, *writer.folder.parents[: len(writer.folder.relative_to(tmp_path).parts)]]
    assert above[-1] == tmp_path
    assert set(map(str, above)) <= set(before)
    assert steps[-1] == str(writer.folder)


def test_failed_rows_are_empty_and_nan(tmp_path):
    writer = GroupWriter(tmp_path, spec())
    for unit in range(3):
        write_unit(writer, unit, failed=(1, 4))
    assert writer.empty_rows("tokens") == [1, 4]
    writer.commit(LABELS, whole=WHOLE)
    group = StoredGroup(writer.folder)
    for name in ("tokens", "prefix"):
        values = group.read(name, range(VIEWS)).reshape(VIEWS, -1)
        assert np.isnan(values).all(axis=1).tolist() == [False, True, False, False, True]


def test_bytes_written_are_those_on_disk(tmp_path):
    writer = GroupWriter(tmp_path, spec())
    written = sum(write_unit(writer, unit) for unit in range(3))
    assert written == sum(path.stat().st_size for path in writer.folder.rglob("c.*"))


def test_units_of_another_size_or_that_are_cut_are_not_done(tmp_path):
    writer = GroupWriter(tmp_path, spec())
    for unit in range(3):
        write_unit(writer, unit)
    assert GroupWriter(tmp_path, spec(unit=3)).missing_units() == [0, 1]
    shard = writer.folder / "tokens" / "c.1.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert writer.missing_units() == [1]
    (writer.folder / "prefix" / "c.2.0").unlink()
    assert writer.missing_units() == [1, 2]


def test_labels_lie_where_the_spec_says_and_follow_renamed_frames(tmp_path):
    for labels, folder in ((False, "features/bundle"), (True, "features/bundle/block0")):
        root = tmp_path / str(labels)
        writer = GroupWriter(root, spec(labels))
        for unit in range(3):
            write_unit(writer, unit)
        writer.commit(LABELS, whole=WHOLE)
        group = zarr.open_group(root / folder, mode="r")
        assert group.attrs["coordinates"] == "scene"
        assert list(group["view"][:]) == LABELS[0]  # type: ignore[index]
        assert list(group["scene"][:]) == LABELS[1]  # type: ignore[index]
        renamed = ([f"toy/a/new{i}" for i in range(VIEWS)], LABELS[1])
        writer.label(renamed)
        assert list(zarr.open_array(root / folder / "view", mode="r")[:]) == renamed[0]  # type: ignore[arg-type]


def test_labels_of_rows():
    def views(*positions: int) -> tuple[ViewRow, ...]:
        hexes = {"image_digest": "0" * 64, "geometry_digest": "0" * 64}
        return tuple(ViewRow(name=f"f{p}", position=p, **hexes) for p in positions)

    scenes = [
        SceneViews(
            id=f"toy/{name}", digest="0" * 64, geometry="0" * 64, generation=1, views=views(*positions)
        )
        for name, positions in (("a", (0, 3)), ("b", (1,)))
    ]
    labels = row_labels(make_bundle((1, 1), scenes), [*views(0, 3), *views(1)])
    assert labels == (["toy/a/f0", "toy/a/f3", "toy/b/f1"], ["toy/a", "toy/a", "toy/b"])


def test_documents_that_are_the_same_are_not_written_again(tmp_path):
    path = tmp_path / "zarr.json"
    write_if_changed(path, {"a": (1, 2)})
    before = path.stat().st_ino
    write_if_changed(path, {"a": [1, 2]})
    assert path.stat().st_ino == before
    write_if_changed(path, {"a": [1, 3]})
    assert path.stat().st_ino != before
