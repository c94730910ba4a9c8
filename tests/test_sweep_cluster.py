"""A sweep on a real Dask cluster of this machine: the same bytes as a run alone, whatever happens to the workers."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from quant.acceptance.limits import Limits
from quant.runs.reading import open_run
from quant.runs.settings import Settings
from quant.runs.sources import read_sources
from quant.sweep import process
from quant.sweep.cluster import run_jobs
from quant.sweep.jobs import Sweep, plan_sweep
from quant.sweep.process import Failure, run_job
from tests.commandline import command, quant, spawn
from tests.test_cli import contents
from tests.tracks import strategies

pytestmark = pytest.mark.slow

STEPS = 20
FRAMES = 2000
PATIENCE = 120
"""Seconds for what takes a few on an idle machine."""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strategies.write_inputs(tmp_path_factory.mktemp("material"))


def asked(material: Path, *more: object) -> tuple[object, ...]:
    small = ("--qat-steps", STEPS, "--stress-frames", FRAMES)
    return (material / "policy.npz", "--drive", material / "drive.npz", *small, *more)


def planned(material: Path, *seeds: int) -> Sweep:
    settings = Settings("policy.npz", (str(material / "drive.npz"),), qat_steps=STEPS, stress_frames=FRAMES)
    sources = read_sources(material / "policy.npz", settings)
    return plan_sweep(material, sources, settings, seeds, ("ptq",), Limits())


class Cluster:
    """`dask scheduler` and `dask worker` as a user starts them, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "scheduler.json"
        self._started = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))]
        until(file.is_file)
        self.address: str = json.loads(file.read_bytes())["address"]
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self) -> None:
        """One with one thread and no nanny that would start it again."""
        words = (self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
        self.workers.append(self._start("worker", *words))

    def renew(self) -> subprocess.Popen[bytes]:
        """Exactly one worker, just started: it has the sources of quant as they are now."""
        self.empty()
        self.add_worker()
        self.wait_for(1)
        return self.workers[-1]

    def empty(self) -> None:
        """No worker is left."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()
        self.wait_for(0)

    def wait_for(self, workers: int) -> None:
        """Until exactly so many are there."""
        with Client(self.address, set_as_default=False) as client:
            until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == workers)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).parent / "dask"), *words, "--no-dashboard"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def stop(self) -> None:
        """Ends everything that was started."""
        for started in (*self.workers, *self._started):
            started.kill()
            started.wait()


def until(happens: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def descendants(parent: int) -> list[int]:
    """Of every thread of it, and theirs."""
    own = [int(pid) for file in Path(f"/proc/{parent}/task").glob("*/children") for pid in file.read_text().split()]
    return [pid for one in own for pid in (one, *descendants(one))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def swept(material: Path, cluster: Cluster) -> Path:
    """Two seeds on an existing cluster of two workers, one of which is killed in the middle of its run."""
    folder = material / "sweep"
    cluster.empty()
    none = quant("sweep", *asked(material, "--seeds", "1:3", "--out", folder, "--dask", cluster.address))
    assert none.code == 2 and "has no worker" in none.err and "dask worker" in none.err
    cluster.add_worker()
    cluster.add_worker()
    words = command("sweep", *asked(material, "--seeds", "1:3", "--out", folder, "--dask", cluster.address))
    cluster.wait_for(2)
    done = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    victim = cluster.workers[0]
    until(lambda: descendants(victim.pid) or done.poll() is not None)
    runs = descendants(victim.pid)
    assert runs, done.communicate()[0]
    victim.kill()
    victim.wait()
    until(lambda: not any(map(alive, runs)))  # nobody would take their results
    out, _ = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, out
    return folder


def test_the_bytes_are_those_of_a_run_alone_though_a_worker_died(material: Path, swept: Path) -> None:
    """Another process, another hash seed, no Dask: everything but the manifest is the same."""
    alone = material / "alone"
    words = asked(material, "--out", alone, "--training-seed", "2")
    done = spawn("run", *words, PYTHONHASHSEED="7")
    assert done.code == 0, done.err
    one, other = contents(alone), contents(swept / "seed-2")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == ["manifest.json"]
    assert open_run(swept / "seed-2").settings.training_seed == 2
    curves = [(swept / f"seed-{seed}" / "loss_curve_qat.csv").read_bytes() for seed in (1, 2)]
    assert curves[0] != curves[1], "the seed changed nothing"
    assert contents(swept / "seed-1")["quant_dataset.json"] == other["quant_dataset.json"]


def test_a_worker_of_other_packages_is_refused(material: Path, cluster: Cluster) -> None:
    """A checkout that was pulled here and not there."""
    cluster.renew()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quant.sweep.cluster.package_sha256", lambda: "0" * 64)
        words = asked(material, "--seeds", "5", "--out", material / "never", "--dask", cluster.address)
        done = quant("sweep", *words)
    assert done.code == 2 and "other packages: the sources of quant" in done.err
    assert not (material / "never" / "seed-5").exists()


def test_an_interrupted_sweep_ends_its_runs_on_the_cluster(material: Path, cluster: Cluster) -> None:
    """SIGTERM: the worker stays, the process of the run does not."""
    endless = ("--qat-steps", 1_000_000)
    words = asked(material, *endless, "--seeds", "8", "--out", material / "cut", "--dask", cluster.address)
    worker = cluster.renew()
    done = subprocess.Popen(command("sweep", *words), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    until(lambda: descendants(worker.pid) or done.poll() is not None)
    runs = descendants(worker.pid)
    assert runs, done.communicate()
    done.send_signal(signal.SIGTERM)
    _, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 143 and b"terminated" in err
    until(lambda: not any(map(alive, runs)))
    assert worker.poll() is None
    assert list((material / "cut").iterdir()) == []


def test_control_c_at_a_terminal_ends_a_local_sweep(material: Path) -> None:
    """And while it goes on, the terminal shows every seed and all of them."""
    words = asked(material, "--seeds", "0:2", "--out", material / "here", "--workers", "2")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "100"}
        os.execv(sys.executable, command("sweep", *words))
    shown = b""
    deadline, runs = time.monotonic() + PATIENCE, list[int]()
    while b"\nquant: interrupted" not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:
                break
        if not runs and b"seed 0" in shown and b"seed 1" in shown:
            runs = descendants(pid)
            os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130, shown.decode()
    os.close(terminal)
    assert b"0 of 2 seeds" in shown and len(runs) >= 4
    until(lambda: not any(map(alive, runs)))
    assert list((material / "here").iterdir()) == []


def test_a_seed_that_cannot_be_made_says_why_and_the_others_go_on(material: Path) -> None:
    """In processes of this machine, with long sources that cannot be read: quicker than what fails later."""
    sweep = planned(material, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = dict(run_jobs(sweep.jobs, b"garbage" * 2_000_000, workers=1))
    assert list(map(type, results.values())) == [Failure, Failure] and results.keys() == set(sweep.jobs)
    assert all("zlib.error" in result.words for result in results.values() if isinstance(result, Failure))


def test_a_process_that_dies_is_told_from_one_that_fails(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    sweep = planned(material, 3)
    with pytest.raises(process.ProcessDiedError, match="seed 3 ended with code 1"):
        run_job(sweep.jobs[0], sweep.inputs, told=lambda step: None)


def test_no_scheduler_there_is_said_so(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.sweep.cluster.ANSWER_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        done = quant("sweep", *asked(material, "--seeds", "5", "--out", material / "no", "--dask", address))
        assert done.code == 2 and "no Dask scheduler answers" in done.err and "dask scheduler" in done.err, done.err
