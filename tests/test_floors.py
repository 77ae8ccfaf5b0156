"""Imports inside the package are relative and lead to the own folder or to a lower floor."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = {
    "errors": 0,
    "progress": 0,
    "pages": 0,
    "configs": 1,
    "kernels": 1,
    "store": 2,
    "extract": 3,
    "train": 4,
    "probes": 5,
}
TOP = 6  # cli, commands, doctor, demo, testing, __init__, __main__: they may import everything
PACKAGE = Path(__file__).resolve().parents[1]
OUTSIDE = {"tests", "benchmarks", "docs", "build", "dist"}


def folder_of(file: Path) -> str:
    """`store` for store/key.py, `errors` for errors.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    files = (file for file in PACKAGE.rglob("*.py") if not file.relative_to(PACKAGE).parts[0].startswith("."))
    return [file for file in files if folder_of(file) not in OUTSIDE]


def faults(file: Path, text: str) -> Iterator[str]:
    """What the imports of `file` break."""
    here = folder_of(file)
    depth = len(file.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(name.split(".")[0] == "strata" for name in names):
                yield f"line {node.lineno}: strata is imported absolutely"
        elif isinstance(node, ast.ImportFrom) and node.level >= depth:
            targets = [node.module] if node.module else [alias.name for alias in node.names]
            for target in (name.split(".")[0] for name in targets):
                if target != here and FLOORS.get(target, TOP) >= FLOORS.get(here, TOP + 1):
                    yield f"line {node.lineno}: {here} imports {target}, which is no lower floor"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_lead_down(file: Path):
    assert list(faults(file, file.read_text())) == []


def test_a_fault_is_seen():
    file = PACKAGE / "store" / "key.py"
    assert list(faults(file, "from ..extract import plan"))
    assert list(faults(file, "from .. import probes"))
    assert list(faults(file, "import strata.errors"))
    assert (
        list(faults(file, "from ..errors import StrataError\nfrom .schema import Split\nimport numpy")) == []
    )


def beside(file: Path, node: ast.ImportFrom) -> bool:
    """Whether a relative import in a test names a module of the tests."""
    folder = file.parents[node.level - 1]
    names = [node.module] if node.module else [alias.name for alias in node.names]
    there = all((folder / f"{name}.py").is_file() for name in names)
    return there and folder.is_relative_to(PACKAGE / "tests")


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "tests").rglob("*.py")) + sorted((PACKAGE / "benchmarks").rglob("*.py"))
)
def test_tests_and_benchmarks_import_strata_by_name(file: Path):
    relative = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom) and n.level]
    assert [node.lineno for node in relative if not beside(file, node)] == []


def test_a_test_that_leaves_the_tests_is_seen():
    file = PACKAGE / "tests/store/test_key.py"
    wrong = ast.parse("from ...store import key\nfrom ..store import absent").body
    assert not any(beside(file, node) for node in wrong if isinstance(node, ast.ImportFrom))
