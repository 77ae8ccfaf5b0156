"""The options of every command: name, type, default and what it does, in one place.

`load.py` merges a preset and `name=value` words into these; `--help` prints them. A field without
default (MISSING) must be given.
"""

from .extract import ExtractConfig, SubmitConfig
from .field import MISSING
from .probe import CorrespondenceConfig, DemoConfig, ReconstructConfig, ReportConfig
from .query import ExportConfig, ListConfig
from .scenes import CheckConfig, ConvertConfig, PackConfig, ScenesConfig, SetsConfig, SetsOptions, SynthConfig
from .store import PartOptions, PullConfig, PushConfig, VerifyConfig
from .train import FitOptions, TrainVGGTConfig

__all__ = [
    "MISSING",
    "CheckConfig",
    "ConvertConfig",
    "CorrespondenceConfig",
    "DemoConfig",
    "ExportConfig",
    "ExtractConfig",
    "FitOptions",
    "ListConfig",
    "PackConfig",
    "PartOptions",
    "PullConfig",
    "PushConfig",
    "ReconstructConfig",
    "ReportConfig",
    "ScenesConfig",
    "SetsConfig",
    "SetsOptions",
    "SubmitConfig",
    "SynthConfig",
    "TrainVGGTConfig",
    "VerifyConfig",
]
