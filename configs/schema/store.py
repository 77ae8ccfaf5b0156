"""Options of the commands that look after a store."""

from __future__ import annotations

from dataclasses import dataclass

from .field import option


@dataclass(kw_only=True)
class VerifyConfig:
    """Find what is not as it was written; the words are for --recompute."""

    shards: str | None = option(None, "folder that `strata pack` wrote; --recompute needs it")
    encoder: str | None = option(None, "recompute the features of this encoder only; a name, or name@key")
    weights: str | None = option(
        None, "hub | random:<seed> | path of a checkpoint; none = what the features were made with"
    )
    device: str = option("auto", "auto | cpu | cuda | cuda:<n>")
