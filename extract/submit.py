"""`strata submit`: a command of Strata as a job on a Ray cluster, with this checkout's code.

The nodes have the environment; the job carries the package alone, as the module `strata`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from ..configs.load import load
from ..configs.schema import SubmitConfig
from ..errors import ConfigError
from .ray_session import jobs
from .stage import stage

ABOUT_JOBS = ("status", "logs", "stop")


def submit(words: Sequence[str], console: Console) -> int:
    """Send a command, or ask about a job.

    Args:
        words: `[address=...] [gpus=N] [processes=N]` and a whole command without the word `strata`; or
            `status [ID]`, `logs ID`, `stop ID`, with `address=` before or after.
        console: for the job's id, or what is asked for.

    Raises:
        ConfigError: there is no command or no id, or a number cannot be meant.
        ClusterError: the cluster is out of reach, wants a token, or does not know the job.
    """
    own, command = split_words(words)
    config = load(SubmitConfig, own)
    if not command:
        raise ConfigError(
            "there is no command to submit.",
            where="command line",
            fix="strata submit -- extract run shards=... store=... encoder=... backend=ray",
        )
    if command[0] in ABOUT_JOBS:
        return _about(command[0], command[1:], config, console)
    return _send(command, config, console)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(words for `submit` itself, the command): ours come first, or last in a question about a job."""
    words = list(words)
    start = next((i for i, word in enumerate(words) if "=" not in word), len(words))
    own, command = words[:start], words[start:]
    if command and command[0] in ABOUT_JOBS:
        own += [word for word in command if "=" in word]
        command = [word for word in command if "=" not in word]
    return own, command


def entrypoint(command: Sequence[str], folder: Path, processes: int = 1) -> str:
    """The job's shell command; it starts in this folder where the cluster has it, so relative paths hold.

    A folder `strata` there is not taken for the code that the job carries, by no process of the job.
    """
    run = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] * (processes > 1)
    start = shlex.join(["python", "-m", *run, "strata", *command])
    folder_text = shlex.quote(str(folder))
    return f"cd {folder_text} || echo 'relative paths lead from here:' $PWD; PYTHONSAFEPATH=1 {start}"


def _send(command: Sequence[str], config: SubmitConfig, console: Console) -> int:
    _check_place(command, config)
    with jobs(config.address) as client, TemporaryDirectory(prefix="strata-stage-") as folder:
        code, start = stage(Path(folder)), entrypoint(command, Path.cwd(), config.processes)
        # A job that reserves nothing sees all GPUs of the head node.
        place = {"entrypoint_num_gpus": config.gpus} if config.gpus else {}
        job = client.submit_job(entrypoint=start, runtime_env={"py_modules": [str(code)]}, **place)
    words = f"address={config.address} " if config.address else ""
    console.print(f"submitted {job}", highlight=False)
    for about in ABOUT_JOBS:
        console.print(f"[dim]strata submit {words}{about} {job}[/dim]", highlight=False, soft_wrap=True)
    return 0


def _check_place(command: Sequence[str], config: SubmitConfig) -> None:
    for name, least in (("gpus", 0), ("processes", 1)):
        if getattr(config, name) < least:
            raise ConfigError(
                f"{name}={getattr(config, name)} cannot be meant.",
                where=name,
                fix=f"write {name}={least} or more",
            )
    if config.processes > 1 and command[0] != "train":
        raise ConfigError(
            f"{command[0]} does not run in several processes by torchrun.",
            where=f"processes={config.processes}",
            why="only train does; an extraction has backend=ray and workers=",
            fix="leave processes= out",
        )


def _about(question: str, ids: Sequence[str], config: SubmitConfig, console: Console) -> int:
    if len(ids) > 1 or (not ids and question != "status"):
        raise ConfigError(
            f"{question} wants the id of one job.",
            where="command line",
            why=f"given: {' '.join(ids) or 'none'}",
            fix="`strata submit status` lists the jobs",
        )
    with jobs(config.address) as client:
        lines = [_answer(client, question, ids[0])] if ids else _listed(client)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _answer(client: Any, question: str, job: str) -> str:
    if question == "logs":
        return client.get_job_logs(job).rstrip("\n")
    if question == "stop":
        return f"{job} is being stopped" if client.stop_job(job) else f"{job} had ended before"
    return _line(client.get_job_info(job))


def _listed(client: Any) -> list[str]:
    """Jobs that were submitted, the newest first."""
    submitted = [job for job in client.list_jobs() if job.submission_id]
    return [_line(job) for job in sorted(submitted, key=lambda job: -(job.start_time or 0))]


def _line(job: Any) -> str:
    command = job.entrypoint.rpartition("-m ")[2]
    return f"{job.submission_id}  {job.status.value}  {command}\n  {(job.message or '').strip()}".rstrip()
