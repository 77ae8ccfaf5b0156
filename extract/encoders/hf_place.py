"""Where the files of a model of transformers are: a folder, or a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EncoderError
from .config_file import read_config
from .hub import find_on_hub, hub_file

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
_FILES = (CONFIG, PROCESSOR, WEIGHTS)
_WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
_OF_WEIGHTS = "weights=FOLDER; weights=random:0 needs no download"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder if there is one of that name, else a repository `owner/name`."""

    name: str

    @property
    def folder(self) -> Path | None:
        path = Path(self.name).expanduser()
        return path if self.name and path.is_dir() else None

    @property
    def title(self) -> str:
        """The repository, or the folder's own name: what a model is called does not depend on its path."""
        return self.folder.resolve().name if self.folder else self.name

    @property
    def has_config(self) -> bool:
        """Whether it is a folder with a config."""
        return self.folder is not None and (self.folder / CONFIG).is_file()

    def config(self) -> dict[str, Any]:
        """The model's config, as it is written.

        Raises:
            EncoderError: there is none, it is out of reach or no JSON.
        """
        return read_config(self._file(CONFIG, instead=self._of_config))

    def processor(self) -> dict[str, Any]:
        """The config of its preprocessing; empty where the model comes without.

        Raises:
            EncoderError: the hub is out of reach, or the file is no JSON.
        """
        if self.folder is None:
            path = find_on_hub(self.name, PROCESSOR, instead=self._of_config, together=_FILES)
        else:
            path = self.folder / PROCESSOR
        return read_config(path) if path and path.is_file() else {}

    def weights(self) -> Path:
        """The file of its weights.

        Raises:
            EncoderError: there is none, or it is out of reach.
        """
        return self._file(*_WEIGHT_FILES, instead=_OF_WEIGHTS)

    @property
    def _of_config(self) -> str:
        """Without its config nothing is known of the model, so that random weights need it too."""
        return (
            f"encoder=hf:FOLDER in place of hf:{self.name}; presets of `strata encoders ls` have their config"
        )

    def _file(self, *names: str, instead: str) -> Path:
        if self.folder is None:
            return hub_file(self.name, *names, instead=instead, together=_FILES)
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise EncoderError(
            f"the folder has no {' and no '.join(names)}.",
            where=self.folder,
            why=f"a model of transformers is a folder with {CONFIG} and {WEIGHTS} in one file",
            fix="give a folder that save_pretrained or `hf download --local-dir` wrote",
        )
