"""What a job carries: our code and nothing that lies beside it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from strata.errors import ClusterError
from strata.extract.stage import PACKAGE, code_digest, package_files, stage


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "a = 1\n",
        "cli.py": "",
        "store/__init__.py": "",
        "store/key.py": "k = 2\n",
        "configs/__init__.py": "",
        "configs/encoders/tiny.yaml": "x: 1\n",
        "probes/__init__.py": "",
        "probes/report.html": "<p>",
        "probes/__pycache__/report.cpython-311.pyc": "no",
        "tests/test_key.py": "no",
        ".git/hooks/update.py": "no",
        ".venv/lib/torch.py": "no",
        "README.md": "no",
        "demo/feats.zarr/c.0": "no",
    }
    for name, text in files.items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text(text)
    return tmp_path / "package"


def test_the_code_is_staged_and_nothing_else(checkout: Path, tmp_path: Path):
    staged = stage(tmp_path / "out", checkout)
    assert staged.name == "strata"
    found = sorted(str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file())
    assert found == [
        "__init__.py",
        "cli.py",
        "configs/__init__.py",
        "configs/encoders/tiny.yaml",
        "probes/__init__.py",
        "probes/report.html",
        "store/__init__.py",
        "store/key.py",
    ]


def test_the_digest_is_that_of_the_code(checkout: Path, tmp_path: Path):
    before = code_digest(checkout)
    assert code_digest(stage(tmp_path / "a", checkout)) == before
    copy = stage(tmp_path / "b", checkout)
    (copy / "store" / "key.py").write_text("k = 3\n")
    assert code_digest(copy) != before
    renamed = stage(tmp_path / "c", checkout)
    (renamed / "cli.py").rename(renamed / "cli2.py")
    assert code_digest(renamed) != before


def test_what_is_too_large_is_not_sent(checkout: Path, tmp_path: Path):
    (checkout / "store" / "weights.yaml").write_bytes(bytes(21_000_000))
    with pytest.raises(ClusterError) as caught:
        stage(tmp_path / "out", checkout)
    assert "weights.yaml with 21.0 MB" in caught.value.why


def test_the_staged_package_runs_alone(tmp_path: Path):
    stage(tmp_path)
    assert len(package_files(tmp_path / "strata")) == len(package_files())
    ran = subprocess.run(
        [sys.executable, "-m", "strata", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith("strata "), ran.stderr


def test_all_data_of_the_package_is_staged():
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["tool"]["setuptools"]
    staged = set(package_files())
    for package, globs in project["package-data"].items():
        folder = PACKAGE.joinpath(*package.split(".")[1:])
        data = {path.relative_to(PACKAGE) for one in globs for path in folder.glob(one)}
        assert data - {Path("py.typed")} <= staged
