"""Weights from the Hugging Face hub: from the local cache if they are there, else one quick try."""

from __future__ import annotations

from pathlib import Path

from ...errors import EncoderError

TIMEOUT_S = 10


def hub_file(repo: str, filename: str) -> Path:
    """The local copy of a file of a hub repository, downloaded when the cache has none.

    Raises:
        EncoderError: the hub is out of reach, or the repository is gated or gone.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, filename, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        # A download retries for most of a minute before it gives up; this question does not.
        HfApi().model_info(repo, timeout=TIMEOUT_S)
        return Path(hf_hub_download(repo, filename))
    except Exception as error:  # the client raises the types of whichever HTTP library it was built on
        raise EncoderError(
            f"the weights {repo} could not be fetched from the hub.",
            where=f"https://huggingface.co/{repo}",
            why=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            fix=f"where there is a network (and, for gated weights, after `hf auth login`), run\n"
            f"  hf download {repo} {filename} --local-dir .\n"
            f"and give weights=PATH/{filename} here; weights=random:0 needs no download",
        ) from error
