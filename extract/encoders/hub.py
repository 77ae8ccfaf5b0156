"""Files of the Hugging Face hub: from the local cache if they are there, else one quick try."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ...errors import EncoderError

TIMEOUT_S = 10


def hub_file(repo: str, *filenames: str, instead: str = "", together: tuple[str, ...] = ()) -> Path:
    """The local copy of the first of these files that the repository has, downloaded if need be.

    Args:
        repo: `owner/name`.
        instead: what to give on a machine without a network, after the download elsewhere; FOLDER in it
            stands for the folder that the download goes to.
        together: all files that are to be downloaded there, if the encoder needs more than one.

    Raises:
        EncoderError: the hub is out of reach, the repository gated or gone, or without such a file.
    """
    path = find_on_hub(repo, *filenames, instead=instead, together=together)
    if path is None:
        raise EncoderError(
            f"{repo} has no {' and no '.join(filenames)}.",
            where=f"https://huggingface.co/{repo}",
            why="the encoder needs one of them",
            fix="name a repository with weights for transformers, or give weights=PATH of a checkpoint",
        )
    return path


def find_on_hub(repo: str, *filenames: str, instead: str = "", together: tuple[str, ...] = ()) -> Path | None:
    """As `hub_file`, but None when the repository has none of the files."""
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    _check_name(repo)
    cached = [try_to_load_from_cache(repo, filename) for filename in filenames]
    for path in cached:
        if isinstance(path, str):
            return Path(path)
    if None not in cached:  # the hub has said before that there is none
        return None
    try:
        # A download retries for most of a minute before it gives up; this question does not.
        HfApi().model_info(repo, timeout=TIMEOUT_S)
        for filename in filenames:
            with suppress(RemoteEntryNotFoundError):
                return Path(hf_hub_download(repo, filename))
        return None
    except Exception as error:  # the client raises the types of whichever HTTP library it was built on
        raise _out_of_reach(repo, filenames[0], instead, together, error) from error


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise EncoderError(
            f"{repo!r} is neither a folder here nor the name of a repository of the hub.",
            where="encoder",
            why=str(error),
            fix="check the path; repositories are called owner/name",
        ) from None


def _out_of_reach(
    repo: str, filename: str, instead: str, together: tuple[str, ...], error: Exception
) -> EncoderError:
    folder = repo.rpartition("/")[2]
    instead = instead or f"weights=FOLDER/{filename}; weights=random:0 needs no download"
    return EncoderError(
        f"{filename} of {repo} could not be fetched from the hub.",
        where=f"https://huggingface.co/{repo}",
        why=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
        fix=f"where there is a network (and, for gated weights, after `hf auth login`), run\n"
        f"  hf download {repo} {' '.join(together or (filename,))} --local-dir {folder}\n"
        f"copy {folder} here, and give {instead.replace('FOLDER', folder)}",
    )
