"""`config.json` and its like, beside a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import EncoderError


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        EncoderError: it cannot be read, or is no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        why = "" if isinstance(values, dict) else "it holds no object"
    except (OSError, ValueError) as error:
        values, why = {}, str(error)
    if why:
        raise EncoderError(
            f"{path.name} cannot be read.", where=path, why=why, fix="copy or download the file again"
        )
    return values
