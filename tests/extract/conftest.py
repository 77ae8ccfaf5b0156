"""Fuzzing for the tests here."""

from ..fuzzing import fuzz, watch

__all__ = ["fuzz", "watch"]
