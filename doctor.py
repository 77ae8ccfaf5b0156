"""`strata doctor`: what works on this machine, what falls back, and how to fix the rest."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .doctor_check import FAIL, GB, OK, WARN, Check
from .doctor_cluster import check_ray
from .doctor_gpu import check_torch, check_triton
from .errors import ConfigError
from .store.remote.cache import LIMIT, cache_of

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}

# Each must be there; looking up the version imports none of them.
PACKAGES = ("timm", "transformers", "zarr", "numcodecs", "webdataset", "ray")
# What falls away without them, and the extra that brings them.
OPTIONAL = {
    "xarray": ("stores do not open with xarray", "xarray"),
    "s3fs": ("stores at s3:// are not read", "remote"),
}

# What open3d loads, and the packages of Debian and Ubuntu that have it.
LIBRARIES = {"libusb-1.0.so.0": "libusb-1.0-0", "libGL.so.1": "libgl1", "libgomp.so.1": "libgomp1"}
OPEN3D_S = 30

WRITE_MB = 64
SLOW_MB_PER_S = 50
FEW_INODES = 100_000


def doctor(console: Console, as_json: bool = False) -> int:
    """Run all checks and print them.

    Returns:
        1 if any check failed, else 0.
    """
    checks = list(examine(Path.cwd()))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _show(checks, console)
    return int(any(check.status == FAIL for check in checks))


def examine(folder: Path) -> Iterator[Check]:
    """All checks, those of the disk for `folder`."""
    # open3d takes seconds to import, and may take its process down: it runs beside the others.
    with _started_open3d() as open3d:
        yield check_python(sys.version_info[:3])
        yield from _guarded("torch", check_torch)
        yield from _guarded("triton", lambda: [check_triton(gpu=_has_gpu())])
        yield from map(check_package, PACKAGES)
        yield from (check_optional(name, *told) for name, told in OPTIONAL.items())
        yield from _guarded("disk", lambda: [check_disk(folder), check_inodes(folder)])
        yield from _guarded("store cache", lambda: [check_cache(os.environ)])
        yield from _guarded("shared memory", lambda: [check_shared_memory(Path("/dev/shm"))])
        yield from _guarded("memory", lambda: [_memory()])
        yield from _guarded("Ray", lambda: check_ray(os.environ, Path.home()))
        yield from _guarded("Hugging Face", lambda: [_hugging_face()])
        yield from _guarded("encoders", lambda: [_encoders()])
        yield check_open3d(open3d)


def check_python(found: tuple[int, ...]) -> Check:
    text = ".".join(map(str, found))
    if found >= (3, 11):
        return Check(name="Python", status=OK, found=text)
    return Check(name="Python", status=FAIL, found=text, fix="install Python 3.11 or later")


def check_package(name: str) -> Check:
    """Whether a package is installed; it is not imported."""
    try:
        return Check(name=name, status=OK, found=version(name))
    except PackageNotFoundError:
        return Check(name=name, status=FAIL, found="not installed", fix=f"pip install {name}")


def check_optional(name: str, lost: str, extra: str) -> Check:
    """A package that strata does without: its absence is told, and no fault."""
    try:
        return Check(name=name, status=OK, found=version(name))
    except PackageNotFoundError:
        found = f"not installed, and optional: {lost}"
        return Check(name=name, status=OK, found=found, fix=f"pip install 'strata3d[{extra}]'")


def check_disk(folder: Path) -> Check:
    """Free space of `folder`, and the speed of writing to it with fsync."""
    name, free_gb = "disk", shutil.disk_usage(folder).free / GB
    try:
        mb_per_s = _write_speed(folder)
    except OSError as error:
        return Check(
            name=name,
            status=FAIL,
            found=f"{folder}: {error.strerror}, {free_gb:,.1f} GB free",
            fix="change to a folder where you may write",
        )
    found = f"{folder}: {free_gb:,.1f} GB free, writes {mb_per_s:,.0f} MB/s"
    if free_gb < 10:
        return Check(name=name, status=WARN, found=found, fix="`strata extract plan` says what a store needs")
    if mb_per_s < SLOW_MB_PER_S:
        fix = "put the store on a local disk: writing features will be what takes the time"
        return Check(name=name, status=WARN, found=found, fix=fix)
    return Check(name=name, status=OK, found=found)


def check_inodes(folder: Path) -> Check:
    """Files that the disk of `folder` still has room for; some file systems set no limit."""
    state = os.statvfs(folder)
    if not state.f_files:
        return Check(name="inodes", status=OK, found="the file system sets no limit")
    found = f"{folder}: room for {state.f_favail:,} more files"
    if state.f_favail < FEW_INODES:
        fix = "delete small files (`df -i` and `du --inodes` find them), or use another disk"
        return Check(name="inodes", status=WARN, found=found, fix=fix)
    return Check(name="inodes", status=OK, found=found)


def check_cache(environment: Mapping[str, str]) -> Check:
    """Where blocks of stores elsewhere are kept, and how many bytes of them."""
    name = "store cache"
    try:
        cache = cache_of(environment)
    except ConfigError as error:
        return Check(name=name, status=FAIL, found=error.what, fix=error.fix)
    if not cache.limit:
        return Check(name=name, status=OK, found=f"off: {LIMIT}=0")
    return Check(name=name, status=OK, found=f"{cache.folder}: at most {cache.limit / GB:,.1f} GB ({LIMIT})")


def check_shared_memory(folder: Path) -> Check:
    """Ray keeps objects there; containers often give it 64 MB only."""
    if not folder.is_dir():
        return Check(name="shared memory", status=OK, found=f"no {folder} on this system")
    free_gb = shutil.disk_usage(folder).free / GB
    found = f"{folder}: {free_gb:,.1f} GB free"
    if free_gb < 1:
        return Check(name="shared memory", status=WARN, found=found, fix="docker run --shm-size=8g, for Ray")
    return Check(name="shared memory", status=OK, found=found)


def check_open3d(process: subprocess.Popen[str]) -> Check:
    """Whether open3d imports, tried in a process of its own."""
    lost = "without it there are no PLY exports and no TSDF meshes"
    try:
        out, err = process.communicate(timeout=OPEN3D_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        out, err = "", f"its import takes more than {OPEN3D_S} s"
    if process.returncode == 0:
        return Check(name="open3d", status=OK, found=out.strip())
    last = (err.strip().splitlines() or ["its import crashes"])[-1]
    if "No module named 'open3d'" in last:
        found = f"not installed, and optional: {lost}"
        return Check(name="open3d", status=OK, found=found, fix="pip install 'strata3d[3d]'")
    needed = " ".join(missing_libraries() or LIBRARIES.values())
    return Check(
        name="open3d",
        status=WARN,
        found=f"{last}; {lost}",
        fix=f"install the system libraries it needs: apt-get install {needed}",
    )


def missing_libraries() -> list[str]:
    """The packages of the system libraries that open3d needs and that do not load."""
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def _guarded(name: str, examine_it: Callable[[], Iterable[Check]]) -> list[Check]:
    """The findings, or a FAIL with the reason when looking itself went wrong."""
    try:
        return list(examine_it())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return [Check(name=name, status=FAIL, found=reason, fix="pip install --upgrade strata3d")]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GB:,.1f} of {memory.total / GB:,.1f} GB free, {os.cpu_count()} CPUs"
    if memory.available < 4 * GB:
        return Check(name="memory", status=WARN, found=found, fix="use a smaller batch=")
    return Check(name="memory", status=OK, found=found)


def _hugging_face() -> Check:
    from huggingface_hub import get_token

    if get_token():
        return Check(name="Hugging Face", status=OK, found="a token is set")
    found = "no token; only gated weights (DINOv3) need one"
    return Check(name="Hugging Face", status=OK, found=found, fix="hf auth login, or export HF_TOKEN=...")


def _encoders() -> Check:
    from .extract.encoders.registry import encoder_names

    found = f"{len(encoder_names())}; `strata encoders ls` lists them"
    return Check(name="encoders", status=OK, found=found)


def _write_speed(folder: Path) -> float:
    """MB/s of one file, written and fsynced."""
    block = os.urandom(1_000_000)
    with tempfile.TemporaryFile(dir=folder) as file:
        start_s = time.perf_counter()
        for _ in range(WRITE_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITE_MB / (time.perf_counter() - start_s)


def _started_open3d() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import open3d; print(open3d.__version__)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _show(checks: list[Check], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        fix = f"\n[dim]fix: {escape(check.fix)}[/]" if check.fix else ""
        table.add_row(f"[{STYLES[check.status]}]{check.status}[/]", check.name, escape(check.found) + fix)
    console.print(table)
