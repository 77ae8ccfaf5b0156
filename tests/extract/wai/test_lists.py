"""The order of scenes, and lists of splits, which may be pickles that are not run."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from strata.errors import SceneError
from strata.extract.scenes.names import natural_key
from strata.extract.scenes.wai import WaiSource

from .room_folder import ID


def test_ids_come_in_natural_order(folder):
    for name in ("room_10", "room_9", "Room"):
        shutil.copytree(folder, folder.with_name(name))
    ids = WaiSource(folder.parent).ids()
    assert ids == [f"synthetic/{name}" for name in ("Room", "room_0", "room_9", "room_10")]
    assert sorted(["a10b2", "a9", "10", "9"], key=natural_key) == ["9", "10", "a9", "a10b2"]


@pytest.fixture
def list_file(folder):
    lists = folder.parents[1] / "metadata" / "test"
    lists.mkdir(parents=True)
    return lists / "synthetic_scene_list_test.npy"


def splits(list_file):
    return WaiSource(list_file.parents[2]).splits()


@pytest.mark.parametrize("names", [[], ["room_0"], ["room_0", "room.1", "room_0"]])
def test_lists_of_strings_are_read_from_npy(list_file, names):
    expected = {"test/synthetic": tuple(f"synthetic/{name}" for name in names)}
    np.save(list_file, np.array(names, dtype=object), allow_pickle=True)
    assert splits(list_file) == expected
    np.save(list_file, np.array(names, dtype=str))
    assert splits(list_file) == expected


class Hostile:
    """Does something when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def hostile_npy(payload: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(list_file, tmp_path, protocol):
    victim = tmp_path / "victim"
    for call, *arguments in (
        (exec, f"open({str(victim)!r}, 'w')"),
        (getattr, "", "join"),
        (np.fromfile, "/dev/null"),
    ):
        array = np.empty(1, object)
        array[0] = Hostile(call, *arguments)
        list_file.write_bytes(hostile_npy(pickle.dumps(array, protocol)))
        with pytest.raises(SceneError, match="list of scenes cannot be read") as caught:
            splits(list_file)
        assert "wants to load" in caught.value.why
        assert caught.value.where == str(list_file)
        assert ".txt" in caught.value.fix
    assert not victim.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x04.",
        b"\x80\x04K\x01.",
        b"\x80\x04]N.",
        pickle.dumps(np.array([1, "a"], dtype=object)),
        pickle.dumps(np.array([["a"], "b"], dtype=object)),
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
        b"N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b".",
    ],
)
def test_pickles_of_something_else_are_refused(list_file, payload):
    list_file.write_bytes(hostile_npy(payload))
    with pytest.raises(SceneError, match="list of scenes cannot be read"):
        splits(list_file)


def test_other_list_files(list_file):
    list_file.with_suffix(".json").write_text('{"format": "strata-split", "scenes": ["room_0"]}')
    assert splits(list_file) == {"test/synthetic": (ID,)}
    list_file.with_suffix(".json").write_text('["../../x"]')
    with pytest.raises(SceneError, match="is not a scene id"):
        splits(list_file)
    list_file.with_suffix(".json").write_text('{"scenes": "room_0"}')
    with pytest.raises(SceneError, match="list of scenes cannot be read"):
        splits(list_file)
