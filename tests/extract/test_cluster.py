"""A cluster of this machine alone, as a user starts one: submitted jobs, addresses, tokens."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from strata.extract.stage import PACKAGE, stage

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef" * 3


@dataclass
class Cluster:
    """A running one: its dashboard, its own address, and the folder that commands start in."""

    dashboard: str
    address: str
    folder: Path
    env: dict[str, str]

    def run(self, *words: str, code: int = 0, **env: str) -> str:
        """What a command prints; it leaves with `code`."""
        done = subprocess.run(
            words, cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def strata(self, *words: str, code: int = 0, **env: str) -> str:
        return self.run(sys.executable, "-m", "strata", *words, code=code, **env)

    def submit(self, *words: str, **env: str) -> str:
        """The log of a job that has ended well."""
        told = self.run(
            sys.executable, "-m", "strata", "submit", f"address={self.dashboard}", *words, code=0, **env
        )
        job = re.search(r"submitted (\S+)", told)
        assert job is not None
        status = ""
        for _ in range(240):
            status = self.strata("submit", "status", job[1], f"address={self.dashboard}")
            if "SUCCEEDED" in status or "FAILED" in status:
                break
            time.sleep(1)
        log = self.strata("submit", "logs", job[1], f"address={self.dashboard}")
        assert "SUCCEEDED" in status, status + log
        return log


def free_ports(count: int) -> list[int]:
    """Outside of 10002 to 19999, which workers take."""
    sockets = [socket.socket() for _ in range(count)]
    found, port = [], 21000
    for one in sockets:
        while True:
            port += 1
            try:
                one.bind(("127.0.0.1", port))
                break
            except OSError:
                continue
        found.append(port)
    for one in sockets:
        one.close()
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    work = tmp_path_factory.mktemp("cluster")
    # Its sockets' paths may have 107 bytes.
    temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    dashboard, gcs, *others = free_ports(8)
    names = (
        "dashboard-agent-listen",
        "dashboard-agent-grpc",
        "runtime-env-agent",
        "node-manager",
        "object-manager",
        "metrics-export",
    )
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PACKAGE / ".typing"),
        "HOME": str(work),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_TOKEN": TOKEN,
    }
    ports = [f"--{name}-port={port}" for name, port in zip(names, others, strict=True)]
    start = [
        *("ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", *ports),
        *(
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
        ),
        *("--num-cpus=2", f"--temp-dir={temp}", "--object-store-memory=100000000", "--disable-usage-stats"),
    ]
    (work / "head").mkdir()
    with (work / "ray.log").open("w") as log:
        # The mode of a head is set by hand, strata sets its own when there is a token.
        process = subprocess.Popen(
            start, cwd=work / "head", env={**env, "RAY_AUTH_MODE": "token"}, stdout=log, stderr=log
        )
    made = Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", work, env)
    try:
        wait_for(dashboard, process, work / "ray.log")
        yield made
    finally:
        process.terminate()
        end(temp, process.pid)
        shutil.rmtree(temp, ignore_errors=True)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        assert process.poll() is None, log.read_text()
        with socket.socket() as one:
            if not one.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.5)
    pytest.fail(f"the cluster did not start: {log.read_text()}")


def end(temp: Path, pid: int) -> None:
    """Kill what was started, and nothing else: it is named by its folder."""
    ours = {one for one in psutil.process_iter() if one.pid == pid or named(one, temp)}
    ours |= {child for one in ours if one.is_running() for child in one.children(recursive=True)}
    for one in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(list(ours), timeout=20)


def named(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in word for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def words(cluster: Cluster) -> list[str]:
    """The words of an extraction, with paths relative to where commands start."""
    cluster.strata("scenes", "synth", "out=scenes", "scenes=2", "views=3")
    cluster.strata("pack", "scenes=scenes", "out=shards")
    made = ["shards=shards", "encoder=vit_tiny_demo", "weights=random:0", "grid=aspect:8", "unit_views=2"]
    cluster.strata("extract", "run", *made, "store=local.zarr")
    return made


def test_a_job_runs_the_code_that_it_carries(cluster: Cluster, tmp_path: Path):
    init = stage(tmp_path) / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.9.9"', init.read_text()))
    log = cluster.submit("--", "--version", PYTHONPATH=str(tmp_path))
    assert "strata 9.9.9\n" in log


def test_a_submitted_extraction_writes_the_bytes_of_a_local_one(cluster: Cluster, words: list[str], tree):
    log = cluster.submit("--", "extract", "run", *words, "store=job.zarr", "backend=ray")
    assert "6 views, 6 computed, 0 were there" in log
    assert tree(cluster.folder / "job.zarr") == tree(cluster.folder / "local.zarr")
    again = ["python", "-m", "strata", "extract", "run", *words, "backend=ray"]
    paths = [f"store={cluster.folder / 'job.zarr'}", f"shards={cluster.folder / 'shards'}"]
    job = ["ray", "job", "submit", "--address", cluster.dashboard, "--", *again, *paths]
    assert "6 views, 0 computed, 6 were there" in cluster.run(*job, RAY_AUTH_MODE="token")
    assert cluster.strata("submit", "status", f"address={cluster.dashboard}").count("SUCCEEDED") >= 2


SIZES = """
{img_size: 56, embed_dim: 32, depth: 2, num_heads: 2, mlp_ratio: 2.0, num_register_tokens: 1,
 encoder: {type: conv}, camera_head: {trunk_depth: 1, num_heads: 2, mlp_ratio: 2.0, iters: 2},
 dpt: {features: 16, out_channels: [16, 16, 16, 16]}}
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_submitted_training_ends_with_the_weights_of_a_local_one(
    cluster: Cluster, words: list[str], processes: int
):
    (cluster.folder / "sizes.yaml").write_text(SIZES)
    size = ["pixels=[42,56]", "views=[2,2]", "set_count=4", "augment=none", "curves=false", "device=cpu"]
    train = [
        "train",
        "vggt",
        "model=sizes.yaml",
        "scenes=shards",
        "scene=*",
        "epochs=1",
        "depth=0",
        "point=0",
        *size,
    ]
    local, job = f"local-{processes}", f"job-{processes}"
    cluster.strata(*train, f"out={local}", "max_images=4", f"accumulate={processes}")
    command = [f"processes={processes}", "--", *train, f"out={job}", f"max_images={4 // processes}"]
    assert "for strata.VGGT.from_pretrained" in cluster.submit(*command)
    ours, theirs = (load_file(cluster.folder / out / "model" / "model.safetensors") for out in (job, local))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=name)
    # The same command finds its checkpoint, and has nothing to do.
    assert "finished already, with" in cluster.submit(*command)


def test_a_driver_connects_by_address(cluster: Cluster, words: list[str], tree):
    run = ("extract", "run", *words, "store=address.zarr", "backend=ray", f"address={cluster.address}")
    assert "6 views, 6 computed" in cluster.strata(*run)
    assert tree(cluster.folder / "address.zarr") == tree(cluster.folder / "local.zarr")


def test_what_goes_wrong_says_how_to_mend_it(cluster: Cluster):
    ask = ("submit", "status", f"address={cluster.dashboard}")
    assert "into RAY_AUTH_TOKEN" in cluster.strata(*ask, code=2, RAY_AUTH_MODE="disabled")
    assert "into RAY_AUTH_TOKEN" in cluster.strata(*ask, code=2, RAY_AUTH_TOKEN="f" * 48)
    unknown = cluster.strata("submit", "stop", "raysubmit_none", f"address={cluster.dashboard}", code=2)
    assert "does not know that job" in unknown
    assert "submit status" in unknown
