"""Words of `strata extract` that cannot be meant are refused, and before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from strata.configs.load import load
from strata.configs.schema import ExtractConfig
from strata.errors import StrataError
from strata.extract.check_words import check_words

WORDS = ["shards=nowhere", "store=f.zarr", "encoder=vit_tiny_demo"]
REFUSED = {
    "storage=u9": "storage=u9 is not known",
    "grid=foo": "grid=foo is not a grid",
    "grid=[0,3]": "is not a size",
    "pixels=[7]": "is not a size",
    "stride=5": "cannot have a token every 5 pixels",
    "stride=0": "cannot have a token every 0 pixels",
    "fit=cut": "fit=cut is not known",
    "orient=up": "orient=up is not known",
    "filter=box": "filter=box is not known",
    "compute=half": "compute=half is not known",
    "views=some": "views=some is not known",
    "retry=all": "retry=all is not known",
    "backend=rya": "backend=rya is not known",
    "limit=0": "limit=0 leaves no scene",
    "batch=0": "at least one view",
    "unit_views=0": "at least one view",
    "workers=2": "how Ray is used",
}


@pytest.mark.parametrize(("word", "what"), REFUSED.items(), ids=list(REFUSED))
def test_each_wrong_word_is_told(word, what):
    with pytest.raises(StrataError, match=what):
        check_words(load(ExtractConfig, [*WORDS, word]))


def test_without_shards_nothing_is_loaded():
    with pytest.raises(StrataError, match="the folder of shards is not there"):
        check_words(load(ExtractConfig, [*WORDS, "stride=7"]))


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_commands_refuse_without_torch(verb):
    code = (
        "import sys\n"
        "from strata.cli import app\n"
        "try:\n"
        f"    app(['extract', '{verb}', *{[*WORDS, 'storage=u9']!r}])\n"
        "finally:\n"
        "    print({'torch', 'timm', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "storage=u9 is not known" in done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
