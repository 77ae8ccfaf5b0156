"""Versions of torch, CUDA and Triton that fit or do not, from facts that are put in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from strata import doctor_gpu as module
from strata.doctor_check import FAIL, OK, WARN
from strata.doctor_gpu import check_driver, check_gpu, check_torch, check_triton, wanted_triton

TORCH = "torch"


@pytest.mark.parametrize(
    ("built", "driver", "usable", "status", "said"),
    [
        ("13.2", None, False, OK, "on the CPU"),
        (None, None, False, OK, "on the CPU"),
        ("13.2", (13, 0), True, OK, "the driver runs CUDA 13.0, torch uses 13.2"),
        ("12.8", (13, 2), True, OK, "torch uses 12.8"),
        ("13.2", (12, 4), False, WARN, "the driver runs CUDA 12.4, torch needs CUDA 13.2"),
        (None, (12, 4), False, WARN, "torch is built for the CPU"),
        ("12.4", (12, 4), False, WARN, "torch finds no GPU"),
    ],
)
def test_torch_and_driver(
    built: str | None, driver: tuple[int, int] | None, usable: bool, status: str, said: str
):
    check = check_driver(built, driver, usable=usable)
    assert (check.status, said in check.found) == (status, True)
    assert bool(check.fix) == (status == WARN)


@pytest.mark.parametrize(
    ("capability", "built_for", "status"),
    [
        ((9, 0), ["sm_80", "sm_90"], OK),
        ((8, 9), ["sm_80", "sm_90"], OK),
        ((12, 0), ["sm_90", "compute_90"], OK),
        ((12, 0), ["sm_90", "sm_100a"], WARN),
        ((6, 1), ["sm_75", "sm_80", "compute_120"], WARN),
    ],
)
def test_torch_holds_code_for_the_gpu(capability: tuple[int, int], built_for: list[str], status: str):
    check = check_gpu(0, "H", (80 * 10**9, 141 * 10**9), capability, built_for)
    assert check.status == status
    assert "80.0 of 141.0 GB free" in check.found
    assert ("device=cpu" in check.fix) == (status == WARN)


def test_a_gpu_without_free_memory_warns():
    check = check_gpu(1, "H", (10**9, 141 * 10**9), (9, 0), ["sm_90"])
    assert (check.name, check.status) == ("GPU 1", WARN)
    assert "nvidia-smi" in check.fix


def test_every_gpu_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda index: f"card {index}",
        get_device_capability=lambda index: (9, 0),
        mem_get_info=lambda index: (5 * 10**9, 8 * 10**9),
        get_arch_list=lambda: ["sm_90"],
    )
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.2"), __version__="2.15.0")
    monkeypatch.setitem(sys.modules, TORCH, torch)
    monkeypatch.setattr(module, "driver_cuda", lambda: (13, 2))
    checks = list(check_torch())
    assert [(check.name, check.status) for check in checks] == [
        (name, OK) for name in ("torch", "CUDA", "GPU 0", "GPU 1")
    ]
    assert "card 1" in checks[3].found


@pytest.mark.parametrize(
    ("requirements", "wanted"),
    [
        (["sympy", "triton~=3.9.0; platform_system == 'Linux'"], "~=3.9.0"),
        (["triton==3.4.0"], "==3.4.0"),
        (["sympy"], ">=3.6"),
        (None, ">=3.6"),
    ],
)
def test_torch_names_its_triton(requirements: list[str] | None, wanted: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "requires", lambda name: requirements)
    assert wanted_triton() == wanted


def test_another_triton_than_torch_wants_warns(monkeypatch: pytest.MonkeyPatch):
    assert check_triton(gpu=False).status == OK
    monkeypatch.setattr(module, "wanted_triton", lambda: "==1.2.3")
    check = check_triton(gpu=False)
    assert (check.status, check.fix) == (WARN, "pip install 'triton==1.2.3'")


def test_a_gpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert check_triton(gpu=False).status == OK
    check = check_triton(gpu=True)
    assert (check.status, check.fix) == (FAIL, "apt-get install gcc")


def test_triton_that_is_not_there_falls_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    check = check_triton(gpu=False)
    assert (check.status, "plain torch kernels" in check.found) == (WARN, True)
