"""What an installed strata is: one clean name, no tests in the wheel, and no second copy under pytest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import strata

NOT_PACKAGED = ("tests", "benchmarks", "docs", "build", "dist", "demo", "runs", "report")


def tracked_like(root: Path) -> list[Path]:
    """Top-level entries that belong to the source."""
    return [
        entry
        for entry in root.iterdir()
        if not entry.name.startswith(".") and not entry.name.endswith(".egg-info") and entry.name != "build"
    ]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: a build folder left in the checkout would put files of yesterday into the wheel.
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for entry in tracked_like(root):
        if entry.is_dir():
            shutil.copytree(entry, copy / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(entry, copy)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-build-isolation",
            "--no-deps",
            "-w",
            out,
            copy,
        ],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_alone(wheel: Path, root: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"strata", "strata3d"}
    assert not [name for name in names if re.match(rf"strata/({'|'.join(NOT_PACKAGED)})/", name)]
    for entry in tracked_like(root):
        if entry.is_dir() and entry.name not in NOT_PACKAGED:
            sources = [
                file for kind in ("py", "yaml", "html", "js", "j2") for file in entry.rglob(f"*.{kind}")
            ]
            assert {f"strata/{file.relative_to(root).as_posix()}" for file in sources} <= set(names)
    assert "strata/py.typed" in names


def test_the_wheel_installs_one_name(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path = [{str(tmp_path)!r}, *[p for p in sys.path if 'packages' not in p]]\n"
        "import strata; print(strata.__file__)\n"
        "assert issubclass(strata.StrataError, Exception)\n"
        "import store"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.stdout.strip() == str(tmp_path / "strata" / "__init__.py")
    assert ran.stderr.strip().endswith("ModuleNotFoundError: No module named 'store'")


def test_every_folder_of_code_is_a_listed_package(root: Path):
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {
        file.parent.relative_to(root)
        for entry in tracked_like(root)
        if entry.is_dir() and entry.name not in NOT_PACKAGED
        for file in entry.rglob("*")
        if file.suffix in (".py", ".yaml", ".html")
    }
    assert {"strata", *(".".join(["strata", *folder.parts]) for folder in folders)} == listed


def test_pytest_sees_the_checkout_once(root: Path):
    assert Path(strata.__file__ or "").parent.resolve() == root
    origins = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    assert [origin for origin in origins if origin == str(root / "__init__.py")] == [strata.__file__]


def test_the_version_is_the_distribution_s():
    assert strata.__version__ == version("strata3d")


def test_public_names_are_there():
    import_all = {name: getattr(strata, name) for name in strata.__all__}
    assert all(callable(value) for value in import_all.values())
    assert set(strata.__all__) <= set(dir(strata))
    with pytest.raises(AttributeError, match="no attribute 'feature_store_typo'"):
        strata.feature_store_typo  # noqa: B018
