"""AdamW over groups of parameters, and the clipping of their gradients.

A parameter's group follows from its name: its factor of the learning rate, whether it decays, and the norm
that its gradient is clipped to together with others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from ..configs.schema import FitOptions
from ..errors import ConfigError, first_few
from .patterns import first_fit, must_fit, rules

Parameters = Mapping[str, nn.Parameter]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def adamw(parameters: Parameters, config: FitOptions) -> AdamW:
    """The optimiser; each group knows its factor of the learning rate as `scale`.

    Raises:
        ConfigError: a glob fits no parameter.
    """
    scales = rules("lr_scale", config.lr_scale, parameters)
    must_fit("no_decay", config.no_decay, parameters)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        rule = first_fit(scales, name)
        decays = not any(fnmatchcase(name, glob) for glob in config.no_decay)
        groups[rule.value if rule else 1.0, config.weight_decay if decays else 0.0].append(parameter)
    listed = [
        {"params": members, "scale": scale, "weight_decay": decay}
        for (scale, decay), members in groups.items()
    ]
    return AdamW(listed, lr=config.lr, betas=(config.betas[0], config.betas[1]))


def set_rate(optimiser: AdamW, rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


@dataclass(frozen=True, kw_only=True)
class ClipGroup:
    """Parameters whose gradients are clipped together."""

    name: str
    norm: float
    parameters: tuple[nn.Parameter, ...]

    def clip(self) -> Tensor:
        """Scale the gradients down to `norm`; returns the 2-norm they had, a scalar."""
        return clip_grad_norm_(self.parameters, self.norm)


def clip_groups(parameters: Parameters, config: FitOptions) -> tuple[ClipGroup, ...]:
    """Every trainable parameter in the group of the first glob that fits it.

    Raises:
        ConfigError: a glob fits nothing, or a parameter is in no group.
    """
    limits = rules("clip", config.clip, parameters)
    members: dict[str, list[nn.Parameter]] = {limit.glob: [] for limit in limits}
    uncovered = []
    for name, parameter in parameters.items():
        limit = first_fit(limits, name)
        if limit:
            members[limit.glob].append(parameter)
        else:
            uncovered.append(name)
    if uncovered:
        raise ConfigError(
            f"{len(uncovered):,} trainable parameters belong to no group of clip.",
            where="clip",
            why=first_few(uncovered),
            fix=f"add a glob for them, *:1.0 for all that are left: clip={','.join([*config.clip, '*:1.0'])}",
        )
    return tuple(
        ClipGroup(name=limit.glob, norm=limit.value, parameters=tuple(members[limit.glob]))
        for limit in limits
        if members[limit.glob]
    )
