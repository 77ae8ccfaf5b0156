"""The command line: what it loads, how it helps, and how it fails."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from strata.cli import app
from strata.commands.command import guarded
from strata.configs import schema
from strata.errors import ClusterError, SceneError
from typer.testing import CliRunner

COMMANDS = {
    "encoders ls": None,
    "encoders info": None,
    "scenes ls": schema.ScenesConfig,
    "scenes check": schema.CheckConfig,
    "scenes synth": schema.SynthConfig,
    "sets make": schema.SetsConfig,
    "sets ls": None,
    "pack": schema.PackConfig,
    "extract plan": schema.ExtractConfig,
    "extract run": schema.ExtractConfig,
    "store ls": None,
    "store info": None,
    "probe correspondence": schema.CorrespondenceConfig,
    "reconstruct": schema.ReconstructConfig,
    "train vggt": schema.TrainVGGTConfig,
    "report": schema.ReportConfig,
    "submit": schema.SubmitConfig,
    "doctor": None,
    "demo": schema.DemoConfig,
}

Strata = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def strata() -> Strata:
    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(words), prog_name="strata")
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.mark.parametrize("code", ["import strata", "from strata.cli import app; app(['--help'])"])
def test_neither_import_nor_help_loads_what_is_heavy(code: str):
    heavy = ("torch", "timm", "transformers", "ray", "zarr", "numpy", "matplotlib", "omegaconf")
    light = ("rich.console", "typer") if code == "import strata" else ()
    check = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', [name for name in {heavy + light!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "loaded: []"


def test_python_m_strata_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "strata", "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"strata \d+\.\d+\.\d+\n", ran.stdout)


def test_every_command_is_there(strata: Strata):
    groups = {words.split()[0] for words in COMMANDS}
    assert groups == set(re.findall(r"^  ([a-z]+)  ", strata("--help")[1].split("Commands:")[1], re.M))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_options_and_an_example(strata: Strata, command: str):
    code, out, _ = strata(*command.split(), "--help")
    assert code == 0
    config = COMMANDS[command]
    if config is not None:
        assert f"\n  strata {command} " in out
        listed = set(re.findall(r"^  ([a-z0-9_]+)(?:  |$)", out, re.M))
        assert {option.name for option in fields(config)} <= listed


def test_wrong_words_exit_with_2_and_say_why(strata: Strata):
    code, _, err = strata("extract", "run", "shards=a", "stor=b", "encoder=c")
    assert code == 2
    assert err.startswith("ConfigError: there is no option 'stor'.\n  where   stor=b\n  why ")
    assert "  fix     did you mean store" in err
    assert "Traceback" not in err


def test_unknown_commands_exit_with_2(strata: Strata):
    assert strata("extrct")[0] == 2
    assert strata("store", "ls")[0] == 2


@pytest.mark.parametrize("words", [("-v", "pack", "x"), ("pack", "-v", "x")])
def test_v_shows_the_traceback(strata: Strata, words: tuple[str, ...]):
    code, _, err = strata(*words)
    assert code == 2
    assert "Traceback" in err
    assert "ConfigError: 'x' is not a word" in err


def test_the_config_is_shown_before_a_long_command(strata: Strata, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr("strata.extract.pack.pack", lambda config, console: seen.append(config) or 1)
    code, out, _ = strata("pack", "scenes=in", "out=shards")
    assert code == 1
    assert "scenes=in out=shards shard_mb=512 max_side=none sets=none" in out
    assert seen == [schema.PackConfig(scenes="in", out="shards")]


def test_report_takes_folders_and_words(strata: Strata, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr("strata.probes.report.report", lambda *given: seen.append(given[:2]) or 0)
    assert strata("report", "runs/a", "out=page", "runs/b")[0] == 0
    assert seen == [(["runs/a", "runs/b"], schema.ReportConfig(out="page"))]


def test_paths_come_bare_or_named(strata: Strata, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr("strata.extract.sets_command.ls", lambda path, console: seen.append(path) or 0)
    assert strata("sets", "ls", "sets=a.json")[0] == 0
    assert strata("sets", "ls", "b.json")[0] == 0
    assert seen == ["a.json", "b.json"]


def failing(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SceneError("no scenes.", where="data", fix="look"), 2, "SceneError: no scenes.\n  where   data\n"),
        (
            ZeroDivisionError("by zero"),
            3,
            "unexpected ZeroDivisionError: by zero\n  fix     run it again with -v",
        ),
        (KeyboardInterrupt(), 130, "The same command continues"),
    ],
)
def test_errors_have_their_exit_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    assert guarded(failing(error), verbose=False) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_no_fault_of_strata(number: int, capsys: pytest.CaptureFixture[str]):
    assert guarded(failing(OSError(number, os.strerror(number), "/scenes/s")), verbose=False) == 2
    told = capsys.readouterr().err
    assert "/scenes/s" in told
    assert "fault of strata" not in told


def test_a_reader_that_leaves_is_no_error():
    script = """
from strata.commands.command import guarded
def body():
    print("x" * 1_000_000)
    return 0
raise SystemExit(guarded(body, verbose=False))
"""
    ran = subprocess.run(
        f'"{sys.executable}" -c "$SCRIPT" | head -c 1; echo " ${{PIPESTATUS[0]}}"',
        shell=True,
        executable="/bin/bash",
        env={"SCRIPT": script, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("x 1\n", "")


@pytest.mark.slow
def test_the_demo_runs_and_resumes(strata: Strata, tmp_path: Path):
    words = ("demo", "scenes=1", f"out={tmp_path / 'demo'}")
    for _ in range(2):
        code, out, err = strata(*words)
        assert code == 0, err
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
    assert out.count(", 0 computed, 8 were there") == 5


def test_the_demo_goes_on_without_ray(strata: Strata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def broken(cpus=None):
        raise ClusterError("Ray cannot be started.", fix="give /dev/shm more room")

    monkeypatch.setattr("strata.extract.ray_session.own_session", broken)
    monkeypatch.setattr("strata.extract.run.run", lambda config, console: seen.append(config.backend) or 1)
    code, out, _ = strata("demo", "scenes=1", f"out={tmp_path / 'demo'}")
    assert code == 1
    assert "going on without Ray: Ray cannot be started.\n  fix     give /dev/shm" in out
    assert seen == ["local"]


def test_submit_takes_a_command_of_its_own(strata: Strata, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr("strata.extract.submit.submit", lambda words, console: seen.append(words) or 0)
    assert strata("submit", "address=h", "--", "-v", "extract", "run", "--preset", "p", "store=b")[0] == 0
    assert seen == [["address=h", "-v", "extract", "run", "--preset", "p", "store=b"]]
