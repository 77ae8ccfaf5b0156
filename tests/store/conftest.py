"""Fuzzing as the tests of scenes have it."""

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "strata_tests_fuzz", Path(__file__).resolve().parents[1] / "extract" / "conftest.py"
)
_FUZZ = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _FUZZ
_SPEC.loader.exec_module(_FUZZ)

watch, fuzz = _FUZZ.watch, _FUZZ.fuzz
