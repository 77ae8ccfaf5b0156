"""The package as files: what a job carries to a cluster, and the digest that tells versions apart."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from importlib import import_module
from pathlib import Path

from ..errors import ClusterError

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".yaml", ".html", ".js")
# The code is below 2 MB. Ray takes no more than 512 MB, after minutes of uploading.
MOST_MB = 20


def package_files(package: Path = PACKAGE) -> list[Path]:
    """The code of the package, relative to it: never tests, data or environments beside it in a checkout."""
    folders = sorted(path.parent for path in package.glob("*/__init__.py"))
    found = [*package.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    return sorted(path.relative_to(package) for path in found if path.suffix in SUFFIXES and path.is_file())


@cache
def code_digest(package: Path = PACKAGE) -> str:
    """sha256 over the names and bytes of the package's files, 64 hex digits."""
    sha = hashlib.sha256()
    for path in package_files(package):
        content = (package / path).read_bytes()
        sha.update(f"{path.as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


def identity() -> dict[str, str]:
    """What runs here: version and code."""
    return {"version": import_module(__name__.partition(".")[0]).__version__, "code": code_digest()}


def stage(folder: Path, package: Path = PACKAGE) -> Path:
    """Copy the package into `folder` as `strata/`; returns that.

    Raises:
        ClusterError: it is too large, so it holds something that is not ours.
    """
    files = package_files(package)
    sizes = {path: (package / path).stat().st_size for path in files}
    if sum(sizes.values()) > MOST_MB * 1e6:
        largest = max(files, key=lambda path: sizes[path])
        raise ClusterError(
            f"the package has {sum(sizes.values()) / 1e6:,.0f} MB; at most {MOST_MB} MB go to a cluster.",
            where=package,
            why=f"the largest file is {largest} with {sizes[largest] / 1e6:,.1f} MB",
            fix="move what is no code out of the package's folders",
        )
    target = folder / "strata"
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / path, target / path)
    return target
