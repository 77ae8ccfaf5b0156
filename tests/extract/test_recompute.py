"""`store verify`: the command, and views that are extracted again."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from strata.configs.schema import VerifyConfig
from strata.errors import ConfigError, ShardError, StoreMismatchError
from strata.extract.verify_command import run
from strata.store.arrays import encode_chunk
from strata.store.atomic import write_atomic
from strata.store.group import StoredGroup
from strata.store.shard_io import shard_parts


@pytest.fixture
def filled(pipeline):
    pipeline.add("a", views=4)
    pipeline.extract(layers=["norm"])
    return pipeline


def verified(pipeline, encoder=None, shards=True, **words):
    said = io.StringIO()
    console = Console(file=said, width=300)
    config = VerifyConfig(shards=str(pipeline.folder / "shards") if shards else None, device="cpu")
    code = run(str(pipeline.root), config, console, encoder=encoder, **words)
    return code, said.getvalue()


def test_what_is_extracted_again_is_what_is_stored(filled, colour):
    code, said = verified(filled, colour(), recompute=3, as_json=True)
    found = json.loads(said)
    assert (code, found["faults"]) == (0, [])
    (again,) = found["recomputed"].values()
    assert (again["views"], again["skipped"]) == (3, 0)
    assert 0 <= again["largest_deviation"]["norm"] < 2**-10


def test_numbers_that_are_whole_but_wrong_are_found_and_repaired(filled, colour, tree):
    before = tree(filled.root)
    group = StoredGroup(next(filled.root.glob("features/*/*/norm")))
    spec = group.array("tokens").spec
    wrong = group.read("tokens", [2, 3]) * np.float16(1.5)
    path = group.folder / "tokens" / spec.file(1)
    write_atomic(path, shard_parts([encode_chunk(spec, row) for row in wrong]))
    assert verified(filled)[0] == 0
    code, said = verified(filled, colour(), recompute=4)
    assert code == 1
    assert "numbers" in said
    assert "row 2 deviates by 0.5 " in said
    assert "row 1" not in said
    assert verified(filled, colour(), recompute=4, repair=True)[0] == 0
    filled.extract(layers=["norm"])
    assert tree(filled.root) == before


def test_what_it_needs_is_asked_for(filled, colour):
    with pytest.raises(ConfigError, match="packed images"):
        verified(filled, colour(), shards=False, recompute=1)
    other = colour()
    other.weights_digest = lambda: "1" * 64
    with pytest.raises(StoreMismatchError, match="weights"):
        verified(filled, other, recompute=1)


def test_wrong_words_are_told_before_the_store_is_read(filled, colour, monkeypatch):
    monkeypatch.setattr("strata.extract.verify_command.verify", lambda *_: pytest.fail("the store is read"))
    with pytest.raises(ConfigError, match="packed images"):
        verified(filled, colour(), shards=False, recompute=1)
    (filled.folder / "shards").rename(filled.folder / "away")
    with pytest.raises(ShardError):
        verified(filled, colour(), recompute=1)


def test_faults_are_told_with_what_mends_them(filled):
    path = next(filled.root.glob("features/*/*/norm/tokens/c.0*"))
    path.write_bytes(path.read_bytes()[:-1])
    code, said = verified(filled)
    assert code == 1
    assert "damaged" in said
    assert path.relative_to(filled.root).as_posix() in said
    assert "--repair" in said
    code, said = verified(filled, repair=True)
    assert code == 0
    assert "extract run" in said
