"""Whatever happens to a store's files is found and named, and repaired by the next extraction."""

from __future__ import annotations

import io
import os
import shutil

import pytest
from rich.console import Console
from strata.configs.schema import VerifyConfig
from strata.extract.verify_command import run
from strata.store.feature_store import FeatureStore
from strata.store.maintain.repair import repair
from strata.store.maintain.verify import verify
from strata.store.remote.commands import write_contents
from strata.store.remote.contents import NAME


@pytest.fixture(scope="module", autouse=True)
def _no_waiting(quick_disk_of_module: None) -> None:
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory, new_pipeline):
    """A small store with every kind of file."""
    made = new_pipeline(tmp_path_factory.mktemp("whole"))
    made.add("a", views=3)
    made.extract(layers=["norm"])
    return made


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file() and path.parent.name != "runs")


@pytest.fixture
def shown(whole):
    """The store as a web server shows it."""
    write_contents(str(whole.root), Console(file=io.StringIO()))
    yield whole.root / NAME
    (whole.root / NAME).unlink(missing_ok=True)


def test_what_a_web_server_shows_belongs_to_a_store(whole, shown):
    assert not verify(whole.root).faults
    shown.write_text(shown.read_text().replace('"catalog/', '"catalog/x', 1))
    (fault,) = verify(whole.root).faults
    assert (fault.path, fault.kind, fault.drop) == (NAME, "metadata", (NAME,))
    shown.write_text(shown.read_text()[:-9])
    (fault,) = verify(whole.root).faults
    assert (fault.path, fault.kind) == (NAME, "damaged")


def test_a_whole_store_has_no_fault(whole):
    report = verify(whole.root)
    assert (report.faults, report.unfinished) == ([], {})
    assert report.files == len(files(whole.root)) + 3  # with the record of the run, and two locks
    assert report.bytes == sum(p.stat().st_size for p in whole.root.rglob("*") if p.is_file())


def copied(whole, folder, new_pipeline):
    made = new_pipeline(folder, source=whole.source)
    shutil.copytree(whole.root, made.root)
    return made


def broken(path):
    """Flip a bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "pattern",
    [
        "features/*/*/norm/tokens/c.0*",
        "features/*/*/norm/prefix/zarr.json",
        "features/*/*/norm/zarr.json",
        "features/*/*/view/c.0",
        "features/*/zarr.json",
        "pixels/*/*/depth_m/c.1*",
        "pixels/*/*/K_px/c.0*",
        "points/*/*/token_valid/zarr.json",
        "catalog/*.views.json",
        "s*s/*.json",
        "zarr.json",
    ],
)
def test_what_is_repaired_comes_back_as_it_was(whole, tmp_path, new_pipeline, tree, colour, pattern):
    copy = copied(whole, tmp_path, new_pipeline)
    paths = sorted(copy.root.glob(pattern))
    assert paths
    for path in paths:
        broken(path)
    assert {fault.path for fault in verify(copy.root).faults} >= {
        path.relative_to(copy.root).as_posix() for path in paths
    }
    assert repair(verify(copy.root)) == []
    assert {fault.kind for fault in verify(copy.root).faults} <= {"missing"}
    encoder = colour()
    copy.extract(encoder, layers=["norm"])
    assert tree(copy.root) == tree(whole.root)
    # A bad shard of features costs its own views alone.
    assert sum(encoder.seen) == (2 if "tokens/c.0" in pattern else 0)


def test_everything_at_once_is_repaired(whole, tmp_path, new_pipeline, tree):
    copy = copied(whole, tmp_path, new_pipeline)
    for path in files(copy.root):
        broken(path)
    assert repair(verify(copy.root)) == []
    while repair_again := verify(copy.root).faults:
        assert all(fault.kind == "missing" or fault.drop for fault in repair_again)
        repair(verify(copy.root))
        copy.extract(layers=["norm"])
    assert tree(copy.root) == tree(whole.root)


def test_readers_see_no_layer_with_a_shard_that_was_dropped(whole, tmp_path, new_pipeline, monkeypatch):
    copy = copied(whole, tmp_path, new_pipeline)
    broken(next(copy.root.glob("features/*/*/norm/tokens/c.0*")))
    unlink = os.unlink

    def seen(path, **words):
        unlink(path, **words)
        assert FeatureStore.open(copy.root).keys() == []

    report = verify(copy.root)
    monkeypatch.setattr("pathlib.os.unlink", seen)
    repair(report)


def test_what_does_not_belong_is_named_and_left(whole, tmp_path, new_pipeline):
    copy = copied(whole, tmp_path, new_pipeline)
    (copy.root / "notes.txt").write_text("mine")
    (copy.root / "features" / "more").symlink_to(tmp_path)
    os.mkfifo(copy.root / "catalog" / "pipe.json")
    (copy.root / "catalog" / ".a.host-1-0.partial").write_bytes(b"half")
    report = verify(copy.root)
    strange = ["catalog/pipe.json", "features/more", "notes.txt"]
    assert [(f.path, f.kind) for f in report.faults] == [(path, "foreign") for path in strange]
    assert list(report.unfinished) == ["catalog/.a.host-1-0.partial"]
    assert [fault.path for fault in repair(report)] == strange
    assert (copy.root / "notes.txt").exists()


def test_repair_says_what_it_leaves_alone(whole, tmp_path, new_pipeline, console):
    copy = copied(whole, tmp_path, new_pipeline)
    (copy.root / "notes.txt").write_text("mine")
    shard = next(copy.root.glob("features/*/*/norm/tokens/c.*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert run(str(copy.root), VerifyConfig(), console, repair=True) == 1
    said = console.file.getvalue()
    assert "foreign   notes.txt" in said
    assert "what was bad is dropped" in said
    assert "left alone: 1 foreign file, since --repair drops only what the store can have anew" in said
    assert "left alone" not in said.partition("left alone")[2]


def test_a_layer_that_is_not_finished_is_no_fault(whole, tmp_path, new_pipeline):
    copy = copied(whole, tmp_path, new_pipeline)
    layer = next(copy.root.glob("features/*/*/norm"))
    (layer / "zarr.json").unlink()
    report = verify(copy.root)
    assert report.faults == []
    assert layer.relative_to(copy.root).as_posix() in report.unfinished


def test_documents_that_are_sound_but_wrong_are_found(whole, tmp_path, new_pipeline):
    from strata.store.atomic import read_json
    from strata.store.documents import write_document

    copy = copied(whole, tmp_path, new_pipeline)
    tokens = next(copy.root.glob("features/*/*/norm/tokens/zarr.json"))
    record = next(path for path in copy.root.glob("catalog/*.json") if "views" not in path.name)
    edits = {
        tokens: lambda d: d["attributes"].update(missing={"1": "it is said"}),
        next(copy.root.glob("features/*/zarr.json")): lambda d: d["attributes"].update(feature_key="{}"),
        next(copy.root.glob("points/*/*/zarr.json")): lambda d: d["attributes"].update(scene_geometry={}),
        record: lambda d: d["scenes"][0].update(id="toy/b"),
    }
    for path, edit in edits.items():
        before = path.read_bytes()
        document = read_json(path)
        edit(document)
        write_document(path, document)
        faults = verify(copy.root).faults
        assert [fault.path for fault in faults if fault.kind == "metadata"] == [
            path.relative_to(copy.root).as_posix()
        ]
        path.write_bytes(before)


def test_bytes_between_chunks_are_looked_at(tmp_path):
    from strata.store.arrays import ArraySpec, encode_chunk
    from strata.store.atomic import write_atomic
    from strata.store.maintain.chunk_files import file_faults
    from strata.store.shard_io import shard_parts

    dims = ("view", "channel")
    spec = ArraySpec(shape=(2, 40_000), dims=dims, dtype="float16", unit=2, sharded=True)
    chunks = [encode_chunk(spec, spec.fill_array(1)[0])] * 2
    write_atomic(tmp_path / "c.0.0", shard_parts(chunks))
    assert list(file_faults(tmp_path / "c.0.0", spec, 0)) == []
    data = bytearray((tmp_path / "c.0.0").read_bytes())
    data[len(chunks[0]) + 100] = 1
    (tmp_path / "c.0.0").write_bytes(data)
    assert list(file_faults(tmp_path / "c.0.0", spec, 0)) == ["bytes between its chunks are not 0."]
