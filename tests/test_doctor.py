"""Each check reports OK, WARN or FAIL with a fix, and the exit code follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from strata import doctor as module
from strata.doctor import (
    FAIL,
    OK,
    WARN,
    Check,
    check_cache,
    check_disk,
    check_inodes,
    check_open3d,
    check_optional,
    check_package,
    check_python,
    check_shared_memory,
    doctor,
)


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_old_python_fails():
    assert check_python((3, 10, 1)).status == FAIL
    assert check_python((3, 11, 0)).status == OK


def test_a_missing_package_fails_with_its_install_line():
    check = check_package("no-such-package-of-strata")
    assert (check.status, check.fix) == (FAIL, "pip install no-such-package-of-strata")
    assert check_package("zarr").status == OK


def test_the_disk_is_written_to_and_left_as_it_was(tmp_path: Path):
    assert "MB/s" in check_disk(tmp_path).found
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_to_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path) -> float:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_write_speed", refuse)
    check = check_disk(tmp_path)
    assert check.status == FAIL
    assert "Permission denied" in check.found


def test_a_slow_disk_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_write_speed", lambda folder: 8.0)
    check = check_disk(tmp_path)
    assert (check.status, "writes 8 MB/s" in check.found) == (WARN, True)
    assert "local disk" in check.fix


@pytest.mark.parametrize(
    ("files", "free", "status"), [(0, 0, OK), (10**7, 10**6, OK), (10**7, 500, WARN), (10**7, 0, WARN)]
)
def test_a_disk_without_room_for_files_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free: int, status: str
):
    state = SimpleNamespace(f_files=files, f_favail=free)
    monkeypatch.setattr(module.os, "statvfs", lambda folder: state)
    check = check_inodes(tmp_path)
    assert check.status == status
    assert ("df -i" in check.fix) == (status == WARN)


def test_what_is_optional_is_no_fault():
    check = check_optional("no-such-package-of-strata", "no tea", "tea")
    assert (check.status, check.fix) == (OK, "pip install 'strata3d[tea]'")
    assert "no tea" in check.found
    assert check_optional("zarr", "all", "x").fix == ""


def test_little_shared_memory_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=64e6))
    check = check_shared_memory(tmp_path)
    assert (check.status, "--shm-size" in check.fix) == (WARN, True)


def test_no_shared_memory_is_fine(tmp_path: Path):
    assert check_shared_memory(tmp_path / "none").status == OK


@pytest.fixture
def _no_libraries(monkeypatch: pytest.MonkeyPatch):
    """None of what open3d loads is on the machine, whatever else somebody installed there."""

    def missing(name: str):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)


@pytest.mark.usefixtures("_no_libraries")
def test_open3d_that_crashes_only_warns():
    check = check_open3d(process("import os; os.abort()"))
    assert check.status == WARN
    assert "libgl1" in check.fix
    assert "PLY" in check.found


@pytest.mark.usefixtures("_no_libraries")
def test_open3d_without_its_libraries_names_them():
    check = check_open3d(process("raise OSError('libusb-1.0.so.0: cannot open shared object file')"))
    assert check.status == WARN
    assert "libusb-1.0.so.0" in check.found
    assert "libusb-1.0-0" in check.fix


def test_open3d_names_the_libraries_that_do_not_load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LIBRARIES", {"libnone.so.7": "libnone7", "libc.so.6": "libc6"})
    check = check_open3d(process("raise OSError('libnone.so.7: cannot open shared object file')"))
    assert check.fix.endswith("apt-get install libnone7")


def test_open3d_that_is_not_installed_names_the_extra():
    check = check_open3d(process("raise ModuleNotFoundError(\"No module named 'open3d'\")"))
    assert (check.status, check.fix) == (OK, "pip install 'strata3d[3d]'")


def test_a_check_that_breaks_is_a_failure_with_its_reason():
    def broken():
        yield Check(name="a", status=OK, found="fine")
        raise RuntimeError("no device\nand more")

    (check,) = module._guarded("torch", broken)
    assert (check.status, check.found) == (FAIL, "RuntimeError: no device")


@pytest.mark.parametrize(("status", "code"), [(OK, 0), (WARN, 0), (FAIL, 1)])
def test_the_exit_code_is_1_when_a_check_fails(
    console: Console,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    code: int,
):
    found = Check(name="disk", status=status, found="[full]", fix="delete [old] stores")
    monkeypatch.setattr(module, "examine", lambda folder: iter([found]))
    assert doctor(console) == code
    assert "delete [old] stores" in console.file.getvalue()  # type: ignore[attr-defined]
    assert doctor(console, as_json=True) == code
    assert json.loads(capsys.readouterr().out) == [
        {"name": "disk", "status": status, "found": "[full]", "fix": "delete [old] stores"}
    ]


def test_this_machine_is_examined(tmp_path: Path):
    checks = {check.name: check for check in module.examine(tmp_path)}
    known = {
        "Python",
        "torch",
        "CUDA",
        "triton",
        "zarr",
        "disk",
        "inodes",
        "memory",
        "Ray cluster",
        "Ray token",
    }
    assert {*known, "shared memory", "xarray", "Hugging Face", "encoders", "open3d"} <= set(checks)
    assert "strata encoders ls" in checks["encoders"].found
    assert not [check for check in checks.values() if check.status != OK and not check.fix]


def test_the_cache_of_stores_elsewhere_is_told(tmp_path):
    told = check_cache({"STRATA_CACHE": str(tmp_path / "c"), "STRATA_CACHE_BYTES": "5GB"})
    assert (told.status, told.found) == (OK, f"{tmp_path / 'c'}: at most 5.0 GB (STRATA_CACHE_BYTES)")
    assert check_cache({"STRATA_CACHE_BYTES": "0"}).found == "off: STRATA_CACHE_BYTES=0"
    wrong = check_cache({"STRATA_CACHE_BYTES": "much"})
    assert (wrong.status, "20GB" in wrong.fix) == (FAIL, True)
