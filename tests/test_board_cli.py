"""The commands that talk to boards, as a user meets them: exit codes, words, and what is left behind."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quant.runs.folder import MANIFEST
from tests.commandline import Outcome, command, quant
from tests.patience import PATIENCE, happens
from tests.tracks import strategies

Start = Callable[..., subprocess.Popen[str]]

FRAME = {"ego": [0.5, 0.0, 0.25, -0.1, 0.0, 0.3], "peers": [[0.1] * 6, [-0.2] * 6]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both tracks, whose board commands change nothing in it."""
    folder = tmp_path_factory.mktemp("boards")
    strategies.write_inputs(folder)
    drive = ("--drive", folder / "drive.npz", "--qat-steps", "2", "--no-stress")
    done = quant("run", folder / "policy.npz", *drive, "--out", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


def refused(done: Outcome, *words: str) -> None:
    assert done.code == 2 and "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_one_observation_from_standard_input_is_decided_by_every_track(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(FRAME).encode())))
    done = quant("board", "decide", run, "--board", "virtual", "--observation", "-", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["track"] for one in found] == ["ptq", "qat"]
    for one in found:
        assert (one["peers"], one["evidence"]) == (2, "simulated")
        assert one["values"] == one["host"]


@pytest.mark.parametrize("given", ["", "[1]", '{"ego": [1], "peers": []}', '{"ego": [0, 0, 0, 0, 0, 0]}'])
def test_what_is_no_observation_is_refused(run: Path, tmp_path: Path, given: str) -> None:
    file = tmp_path / "observation.json"
    file.write_text(given)
    refused(
        quant("board", "decide", run, "--board", "virtual", "--observation", file), "not an observation", "6 numbers"
    )


def test_a_pack_that_cannot_be_written_is_an_error_of_input(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "models.bin", tmp_path):
        refused(quant("pack", run, "-o", output), str(output), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_cannot_be_changed_is_an_error_of_input(run: Path, tmp_path: Path) -> None:
    (run / MANIFEST).rename(tmp_path / MANIFEST)
    (run / MANIFEST).mkdir()
    try:
        refused(quant("decide", run), MANIFEST, "cannot be changed")
    finally:
        (run / MANIFEST).rmdir()
        (tmp_path / MANIFEST).rename(run / MANIFEST)


def test_a_board_without_models_asks_for_a_run() -> None:
    refused(quant("board", "bench", "--board", "virtual"), "the board has no models", "name a RUN")


@pytest.fixture
def serve(run: Path, tmp_path: Path) -> Start:
    """Starts ``quant board serve`` and waits until it says its port."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        words = command("board", "serve", *arguments)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    return start


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    process.send_signal(how)
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_served_board_answers_by_its_link_until_it_is_stopped(
    run: Path, tmp_path: Path, serve: Start, how: signal.Signals
) -> None:
    link = tmp_path / "board"
    process = serve(run, "--link", link)
    try:
        done = quant("board", "info", "--port", link, "--json")
        assert done.code == 0, done.err
        assert [slot["track"] for slot in json.loads(done.out)["models"]["slots"]] == ["ptq", "qat"]
    finally:
        assert stop(process, how) == (0, "")
    assert not link.is_symlink()


def test_a_second_served_board_does_not_take_the_first_ones_link(run: Path, tmp_path: Path, serve: Start) -> None:
    link = tmp_path / "board"
    process = serve("--link", link)
    leads_to = link.readlink()
    try:
        refused(quant("board", "serve", "--link", link), "the link cannot be made", "another board")
        assert link.readlink() == leads_to
    finally:
        stop(process, signal.SIGTERM)


def test_the_link_of_a_board_that_was_killed_is_used_again(run: Path, tmp_path: Path, serve: Start) -> None:
    link = tmp_path / "board"
    stop(serve("--link", link), signal.SIGKILL)
    assert happens(lambda: not link.exists())  # its process ends with it, and with that the port
    assert link.is_symlink() and not link.exists()
    process = serve("--link", link)
    assert link.exists()
    assert stop(process, signal.SIGTERM) == (0, "")


def test_a_served_board_is_given_its_models_by_who_serves_it(run: Path, tmp_path: Path, serve: Start) -> None:
    link = tmp_path / "board"
    process = serve("--link", link)
    try:
        refused(quant("flash", run, "--port", link), "a virtual board", "quant board serve RUN")
    finally:
        stop(process, signal.SIGTERM)
