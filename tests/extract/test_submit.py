"""`strata submit`: which words are whose, what the job is, and what its questions answer."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from strata.errors import ClusterError, ConfigError
from strata.extract import submit as module
from strata.extract.ray_session import TOKEN, jobs, session
from strata.extract.submit import entrypoint, split_words, submit


class Client:
    """Answers as Ray's client does, and keeps what it was given."""

    def __init__(self) -> None:
        self.sent: dict = {}

    def submit_job(self, entrypoint: str, runtime_env: dict, **place: int) -> str:
        (code,) = runtime_env["py_modules"]
        self.sent = {"entrypoint": entrypoint, "keys": list(runtime_env), "name": Path(code).name}
        self.sent["place"] = place
        self.sent["is_code"] = (Path(code) / "__main__.py").is_file()
        return "raysubmit_1"

    def get_job_info(self, job: str) -> SimpleNamespace:
        status = SimpleNamespace(value="RUNNING")
        start = entrypoint(["pack", "out=x"], Path("/w"))
        return SimpleNamespace(
            submission_id=job, status=status, entrypoint=start, message="It runs.", start_time=int(job[-1])
        )

    def list_jobs(self) -> list[SimpleNamespace]:
        unsubmitted = SimpleNamespace(submission_id=None)
        return [self.get_job_info("raysubmit_1"), unsubmitted, self.get_job_info("raysubmit_2")]

    def get_job_logs(self, job: str) -> str:
        return f"log of {job}\n"

    def stop_job(self, job: str) -> bool:
        return job == "raysubmit_1"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()

    @contextmanager
    def connected(address):
        made.sent["address"] = address
        yield made

    monkeypatch.setattr(module, "jobs", connected)
    return made


@pytest.mark.parametrize(
    ("words", "own", "command"),
    [
        (["address=a", "extract", "run", "store=b"], ["address=a"], ["extract", "run", "store=b"]),
        (["report", "x", "address=b"], [], ["report", "x", "address=b"]),
        (["status", "id", "address=a"], ["address=a"], ["status", "id"]),
        (["address=a", "--version"], ["address=a"], ["--version"]),
        (["address=a"], ["address=a"], []),
    ],
)
def test_words_before_the_command_are_our_own(words, own, command):
    assert split_words(words) == (own, command)


def test_training_in_several_processes_waits_for_its_gpus(client: Client, console: Console):
    assert submit(["gpus=8", "processes=8", "train", "vggt", "out=a"], console) == 0
    run = "python -m torch.distributed.run --standalone --nproc-per-node=8 -m strata train vggt out=a"
    assert client.sent["entrypoint"].endswith(f"; PYTHONSAFEPATH=1 {run}")
    assert client.sent["place"] == {"entrypoint_num_gpus": 8}
    assert submit(["pack", "out=a"], console) == 0
    assert client.sent["place"] == {}
    for words in (["gpus=-1", "pack"], ["processes=0", "train"], ["processes=2", "extract", "run"]):
        with pytest.raises(ConfigError):
            submit(words, console)


def test_the_job_is_the_command_with_the_staged_code(client: Client, console: Console):
    assert submit(["address=h:1", "extract", "run", "scene=a b/*"], console) == 0
    assert client.sent["entrypoint"].endswith("; PYTHONSAFEPATH=1 python -m strata extract run 'scene=a b/*'")
    assert client.sent["entrypoint"].startswith(f"cd {Path.cwd()} || ")
    assert client.sent["keys"] == ["py_modules"]
    assert (client.sent["name"], client.sent["is_code"]) == ("strata", True)
    told = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "submitted raysubmit_1\n" in told
    assert "strata submit address=h:1 logs raysubmit_1\n" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logs", "raysubmit_1"], "log of raysubmit_1\n"),
        (["stop", "raysubmit_1"], "raysubmit_1 is being stopped\n"),
        (["stop", "raysubmit_2"], "raysubmit_2 had ended before\n"),
        (["status", "raysubmit_1"], "raysubmit_1  RUNNING  strata pack out=x\n  It runs.\n"),
    ],
)
def test_questions_about_a_job(client: Client, console: Console, words: list[str], said: str):
    assert submit([*words, "address=h"], console) == 0
    assert console.file.getvalue() == said  # pyright: ignore[reportAttributeAccessIssue]
    assert client.sent["address"] == "h"


def test_all_jobs_are_listed_the_newest_first(client: Client, console: Console):
    submit(["status"], console)
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert [line.split()[0] for line in lines[::2]] == ["raysubmit_2", "raysubmit_1"]


@pytest.mark.parametrize("words", [[], ["address=h"], ["logs"], ["stop", "a", "b"], ["adress=h", "pack"]])
def test_what_is_missing_is_told(client: Client, console: Console, words: list[str]):
    with pytest.raises(ConfigError):
        submit(words, console)
    assert "entrypoint" not in client.sent


def test_nobody_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # The environment would overrule the address.
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:3")
    for connect in (jobs("127.0.0.1:1"), session("127.0.0.1:1"), session("ray://127.0.0.1:1")):
        with pytest.raises(ClusterError) as caught, connect:
            pass
        assert "127.0.0.1:1" in caught.value.where
        assert ":3" not in str(caught.value)
        assert TOKEN in caught.value.fix


def test_what_is_ours_passes_through(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: address)
    with jobs("h:1") as client:
        assert client == "http://h:1"
    with pytest.raises(ConfigError, match="mine"), jobs("h:1"):
        raise ConfigError("mine.")
    with pytest.raises(ClusterError, match="does not know that job"), jobs("h:1"):
        raise RuntimeError("Request failed with status code 404: no job")
    with pytest.raises(ClusterError, match="wants a token"), jobs("h:1"):
        raise RuntimeError("Unauthenticated: Authentication token is missing")
