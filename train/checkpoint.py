"""Checkpoints on disk: safetensors for tensors, JSON for the rest, so loading one runs no code.

    checkpoints/step-00001200/model.safetensors       parameters and buffers by name
                              optimiser.safetensors   <parameter>|<entry of its state>
                              state.json              the run's position, options and identity
                best -> step-00000800

A folder appears whole, by a rename. A number is enough for everything random (`seeding.py`), for the learning
rate (`schedule.py`) and for the place in the data (`task.py`): the step.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import StoreError, TrainError, first_few
from ..store.atomic import read_json, remove_abandoned, whole_folder, write_json

MODEL, OPTIMISER, STATE, BEST = "model.safetensors", "optimiser.safetensors", "state.json", "best"
FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: that holds them.
        keep: how many of the newest stay.
    """

    folder: Path
    keep: int = 2

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, rising."""
        names = (_NAME.fullmatch(entry.name) for entry in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def save(
        self, step: int, model: nn.Module, optimiser: Optimizer, document: Mapping[str, Any], best: int | None
    ) -> Path:
        """Write the checkpoint of a step, then `settle`.

        Where the step has one, from before the end of its epoch, its tensors stay and only its state is new.

        Args:
            best: step of the best checkpoint, this one or an earlier one.

        Raises:
            DiskFullError: no space is left; earlier checkpoints are whole.
        """
        remove_abandoned(self.folder)
        path = self.path(step)
        state = {"format": FORMAT, "step": step, **document}
        if path.is_dir():
            write_json(path / STATE, state)
        else:
            with whole_folder(path) as partial:
                _save(_copied(model.state_dict()), partial / MODEL)
                _save(_copied(optimiser_tensors(model, optimiser)), partial / OPTIMISER)
                write_json(partial / STATE, state)
        self.settle(best)
        return path

    def settle(self, best: int | None) -> None:
        """Point to the best, and remove those that are neither among the newest nor the best.

        A run may die after its last checkpoint and before this; the next call then has no step to do.
        """
        if best is not None:
            self._point_to(best)
        for old in self.steps()[: -self.keep]:
            if old != best:
                shutil.rmtree(self.path(old), ignore_errors=True)

    def _point_to(self, step: int) -> None:
        link = self.folder / f".{BEST}.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path(step).name)
        os.replace(link, self.folder / BEST)


def read_state(path: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint.

    Raises:
        TrainError: it cannot be read, or is of another version.
    """
    try:
        document = read_json(path / STATE)
    except StoreError as error:
        raise _damaged(path, error.why or error.what) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, f"state.json is not of format {FORMAT}")
    return document


def load_model(path: Path, model: nn.Module) -> None:
    """Give the model the values of a checkpoint; it may be on any device.

    Raises:
        TrainError: the file cannot be read, or holds another model.
    """
    tensors = _load(path / MODEL)
    known = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in tensors.items()}
    if known != stored:
        raise _other(path, [name for name in {**known, **stored} if known.get(name) != stored.get(name)])
    model.load_state_dict(tensors)


def load_optimiser(path: Path, model: nn.Module, optimiser: Optimizer) -> None:
    """Give the optimiser its state of a checkpoint.

    Raises:
        TrainError: the file cannot be read, or holds the state of other parameters.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in _load(path / OPTIMISER).items():
        name, _, entry = key.rpartition("|")
        by_name.setdefault(name, {})[entry] = value
    numbers = _numbers(model, optimiser)
    if unknown := sorted(set(by_name) - set(numbers)):
        raise _other(path, unknown)
    state = {numbers[name]: entries for name, entries in by_name.items()}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def optimiser_tensors(model: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name and entry."""
    state = optimiser.state_dict()["state"]
    return {
        f"{name}|{entry}": torch.as_tensor(value)
        for name, number in _numbers(model, optimiser).items()
        for entry, value in state.get(number, {}).items()
    }


def _numbers(model: nn.Module, optimiser: Optimizer) -> dict[str, int]:
    """Where the optimiser's own state puts each parameter: their order over all groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(members)}


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory: safetensors refuses tensors that share theirs, as tied weights do."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = errno.ENOSPC if f"os error {errno.ENOSPC})" in str(error) else errno.EIO
        raise OSError(number, str(error)) from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from None


def _damaged(path: Path, why: str) -> TrainError:
    return TrainError(
        "the checkpoint cannot be read.",
        where=path,
        why=why,
        fix="remove this folder; the same command then continues from the checkpoint before it",
    )


def _other(path: Path, names: list[str]) -> TrainError:
    return TrainError(
        "the checkpoint is of another model.",
        where=path,
        why=f"{len(names):,} tensors are missing, new or of another shape: {first_few(names)}",
        fix="give the options that the run began with, or another out=",
    )
