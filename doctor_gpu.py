"""`strata doctor` on torch, CUDA and Triton: whether their versions fit, and what each GPU has."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from .doctor_check import FAIL, GB, OK, WARN, Check

OLDEST_TRITON = "3.6"
SELECT_TORCH = "install the torch build for this driver: https://pytorch.org/get-started"
TIGHT_GB = 4


def check_torch() -> Iterator[Check]:
    """torch, its CUDA against the driver's, and every GPU."""
    import torch

    built = torch.version.cuda
    text = f"{torch.__version__}, built with {f'CUDA {built}' if built else 'no CUDA'}"
    yield Check(name="torch", status=OK, found=text)
    yield check_driver(built, driver_cuda(), usable=torch.cuda.is_available())
    for index in range(torch.cuda.device_count()):
        name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        yield check_gpu(index, name, torch.cuda.mem_get_info(index), capability, torch.cuda.get_arch_list())


def check_driver(built: str | None, driver: tuple[int, int] | None, *, usable: bool) -> Check:
    """Whether torch's CUDA runs on this driver.

    Args:
        built: the CUDA version that torch was built with; None = a build for the CPU.
        driver: the newest CUDA version that the driver runs; None = no driver.
        usable: whether torch finds a GPU.
    """
    if driver is None:
        return Check(name="CUDA", status=OK, found="no NVIDIA driver: everything runs on the CPU")
    runs = f"the driver runs CUDA {driver[0]}.{driver[1]}"
    if built is None:
        return Check(name="CUDA", status=WARN, found=f"{runs}, torch is built for the CPU", fix=SELECT_TORCH)
    if int(built.partition(".")[0]) > driver[0]:
        fix = f"update the driver, or {SELECT_TORCH}"
        return Check(name="CUDA", status=WARN, found=f"{runs}, torch needs CUDA {built}", fix=fix)
    if not usable:
        fix = "look at CUDA_VISIBLE_DEVICES and `nvidia-smi`; in a container, start it with --gpus all"
        return Check(name="CUDA", status=WARN, found=f"{runs}, but torch finds no GPU", fix=fix)
    return Check(name="CUDA", status=OK, found=f"{runs}, torch uses {built}")


def check_gpu(
    index: int, name: str, memory: tuple[int, int], capability: tuple[int, int], built_for: list[str]
) -> Check:
    """One GPU: its memory, and whether torch holds code for it.

    Args:
        memory: bytes free and in all.
        capability: (9, 0) of an sm_90.
        built_for: what torch holds, such as sm_80 (runs on later minor versions) and compute_90 (is
            translated for everything later).
    """
    title, arch = f"GPU {index}", "{}{}".format(*capability)
    found = f"{name} (sm_{arch}), {memory[0] / GB:,.1f} of {memory[1] / GB:,.1f} GB free"
    if not any(_runs(code, capability) for code in built_for):
        found = f"{found}; torch is built for {', '.join(built_for)}"
        return Check(name=title, status=WARN, found=found, fix=f"use device=cpu, or {SELECT_TORCH}")
    if memory[0] < TIGHT_GB * GB:
        fix = "`nvidia-smi` shows who holds the rest; a smaller batch= needs less"
        return Check(name=title, status=WARN, found=found, fix=fix)
    return Check(name=title, status=OK, found=found)


def _runs(code: str, capability: tuple[int, int]) -> bool:
    kind, _, number = code.partition("_")
    built = divmod(int("".join(filter(str.isdigit, number))), 10)
    return built <= capability and (kind == "compute" or built[0] == capability[0])


def check_triton(*, gpu: bool) -> Check:
    """Triton against the version that torch names, and the compiler that it calls."""
    try:
        found = version("triton")
        import triton  # noqa: F401
    except (PackageNotFoundError, ImportError) as error:
        text = f"does not import ({error}); the plain torch kernels are used"
        return Check(
            name="triton", status=WARN, found=text, fix=f"pip install 'triton>={OLDEST_TRITON}' (Linux)"
        )
    wanted = wanted_triton()
    if not _fits(found, wanted):
        fix = f"pip install 'triton{wanted}'"
        return Check(name="triton", status=WARN, found=f"{found}; torch is made for {wanted}", fix=fix)
    if gpu and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        text = f"{found}, but no C compiler, without which no kernel is built for a GPU"
        return Check(name="triton", status=FAIL, found=text, fix="apt-get install gcc")
    return Check(name="triton", status=OK, found=f"{found}, as torch wants it ({wanted})")


def wanted_triton() -> str:
    """The version specifier that the installed torch has for triton; builds for the CPU name none."""
    from packaging.requirements import Requirement

    named = [Requirement(line) for line in requires("torch") or ()]
    return next((str(one.specifier) for one in named if one.name == "triton"), f">={OLDEST_TRITON}")


def driver_cuda() -> tuple[int, int] | None:
    """(13, 2): the newest CUDA version that the NVIDIA driver runs; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (0, 0) if Path("/dev/nvidiactl").exists() else None
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def _fits(found: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)
