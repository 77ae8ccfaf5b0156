"""`strata doctor`: what works on this machine, what falls back, and how to fix the rest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

OK, WARN, FAIL = "OK", "WARN", "FAIL"
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}

# Each must be there; looking up the version imports none of them.
PACKAGES = ("timm", "transformers", "zarr", "numcodecs", "webdataset", "ray")
SYSTEM_LIBRARIES = "libusb-1.0-0 libgl1 libgomp1"
GB = 1e9
WRITE_MB = 64


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding: OK, WARN (something falls back) or FAIL (strata cannot work)."""

    name: str
    status: str
    found: str
    fix: str = ""


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
        yield from _guarded("torch", _torch)
        yield from _guarded("triton", _triton)
        yield from map(check_package, PACKAGES)
        yield from _guarded("disk", lambda: check_disk(folder))
        yield from _guarded("shared memory", lambda: check_shared_memory(Path("/dev/shm")))
        yield from _guarded("memory", _memory)
        yield from _guarded("Hugging Face", _hugging_face)
        yield from _guarded("encoders", _encoders)
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
    return Check(name=name, status=OK, found=found)


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
    falls_back = "; without it there are no PLY exports and no TSDF meshes"
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = "", "its import takes more than a minute"
    if process.returncode == 0:
        return Check(name="open3d", status=OK, found=out.strip())
    last = (err.strip().splitlines() or ["its import crashes"])[-1]
    fix = "pip install 'strata3d[3d]'" if "No module named 'open3d'" in last else ""
    return Check(
        name="open3d",
        status=WARN,
        found=last + falls_back,
        fix=fix or f"install the system libraries {SYSTEM_LIBRARIES} (apt-get install {SYSTEM_LIBRARIES})",
    )


def _guarded(name: str, examine_it: Callable[[], Check | list[Check]]) -> list[Check]:
    """The findings, or a FAIL with the reason when looking itself went wrong."""
    try:
        found = examine_it()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return [Check(name=name, status=FAIL, found=reason, fix="pip install --upgrade strata3d")]
    return found if isinstance(found, list) else [found]


def _torch() -> list[Check]:
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    checks = [Check(name="torch", status=OK, found=f"{torch.__version__}, built with {built}")]
    if not torch.cuda.is_available():
        return [*checks, _no_gpu(driver=Path("/dev/nvidiactl").exists())]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found = f"{torch.cuda.get_device_name(index)}, {free / GB:,.1f} of {total / GB:,.1f} GB free"
        checks.append(Check(name=f"GPU {index}", status=OK, found=found))
    return checks


def _no_gpu(driver: bool) -> Check:
    if not driver:
        return Check(name="GPU", status=OK, found="none: everything runs on the CPU")
    return Check(
        name="GPU",
        status=WARN,
        found="there is an NVIDIA driver, but torch cannot use it",
        fix="install the torch build for this driver: https://pytorch.org/get-started",
    )


def _triton() -> Check:
    try:
        import triton
    except ImportError as error:
        found = f"does not import ({error}); the plain torch kernels are used"
        return Check(name="triton", status=WARN, found=found, fix="pip install triton (Linux)")
    return Check(name="triton", status=OK, found=triton.__version__)


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
    return Check(
        name="Hugging Face", status=OK, found="no token; gated weights (DINOv3) need `hf auth login`"
    )


def _encoders() -> Check:
    from .extract.encoders.registry import encoder_names

    names = encoder_names()
    return Check(name="encoders", status=OK, found=", ".join(names))


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
