"""Modules that are not trained: no gradients, and evaluation mode whatever `train()` says."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn

from ..errors import ConfigError
from .patterns import must_fit


def freeze(model: nn.Module, globs: Sequence[str]) -> list[str]:
    """Freeze the modules of `model` whose names fit one of the globs, with all they contain.

    Returns:
        Their names.

    Raises:
        ConfigError: a glob fits no module, or nothing is left to train.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    must_fit("freeze", globs, modules)
    frozen = [name for name in modules if any(fnmatchcase(name, glob) for glob in globs)]
    for name in frozen:
        module = modules[name]
        module.requires_grad_(False)
        # Locked on the module itself, because train() of any module around it reaches it too.
        module.train = MethodType(_stay, module)
        module.eval()
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(
            "no parameter is left to train.",
            where="freeze",
            why=f"freeze={','.join(globs)}" if globs else "the model has none that requires a gradient",
            fix="freeze fewer modules",
        )
    return frozen


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)
