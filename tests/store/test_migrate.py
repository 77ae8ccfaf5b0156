"""A store of version 0, whose documents carry no checksums, becomes one of this version."""

from __future__ import annotations

import json
import os

import pytest
from strata.errors import StoreError
from strata.store import atomic
from strata.store.documents import unstamped
from strata.store.feature_store import FeatureStore
from strata.store.maintain.migrate import migrate
from strata.store.maintain.verify import verify
from strata.store.view_sets import sets_text


def as_version_0(root):
    """Turn a store back into what version 0 was."""
    lists = [*root.glob("catalog/*.json"), *root.glob("splits/*.json"), *root.glob("sets/*.json")]
    for path in [*lists, *root.rglob("zarr.json")]:
        document = unstamped(json.loads(path.read_bytes()))
        if path.parent == root:
            document["attributes"]["version"] = 0
        text = sets_text if path.parent.name == "sets" else atomic.json_text
        path.write_text(text(document))


@pytest.fixture
def filled(pipeline):
    pipeline.add("a")
    pipeline.extract(layers=["norm"])
    return pipeline


def test_an_older_store_names_the_command_and_becomes_a_new_one(filled, tree, console):
    before = tree(filled.root)
    as_version_0(filled.root)
    for use in (FeatureStore.open, FeatureStore.create, verify):
        with pytest.raises(StoreError) as caught:
            use(filled.root)
        assert "version 0" in caught.value.what
        assert "strata store migrate" in caught.value.fix
    assert migrate(str(filled.root), console) == 0
    assert tree(filled.root) == before
    assert migrate(str(filled.root), console) == 0
    assert "already" in console.file.getvalue()


def test_stopped_at_any_file_it_is_continued(filled, tree, console, monkeypatch):
    before, replace = tree(filled.root), os.replace
    as_version_0(filled.root)
    for step in (1, 5, 30):
        left = [step]

        def stopping(source, target, left=left):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(atomic.os, "replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            migrate(str(filled.root), console)
        monkeypatch.undo()
        with pytest.raises(StoreError, match="version 0"):
            FeatureStore.open(filled.root)
    migrate(str(filled.root), console)
    assert tree(filled.root) == before


def test_a_newer_store_is_left_alone(filled, console, tree):
    path = filled.root / "zarr.json"
    document = json.loads(path.read_bytes())
    document["attributes"]["version"] = 2
    path.write_text(json.dumps(document))
    before = tree(filled.root)
    with pytest.raises(StoreError) as caught:
        migrate(str(filled.root), console)
    assert "newer" in caught.value.fix
    assert tree(filled.root) == before
