"""A whole run with a third track, from the command line to the virtual board."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quant.boards.pack import read_pack
from quant.runs.reading import open_run, pack_of
from quant.tracks.storage import model_name
from tests.commandline import quant
from tests.test_cli import FEW, POLICY, STEPS, contents
from tests.tracks import strategies

pytestmark = pytest.mark.slow

THREE = ("ptq", "qat", "ptq-gptq")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strategies.write_inputs(tmp_path_factory.mktemp("three"), POLICY)


@pytest.fixture(scope="module")
def run(material: Path) -> Path:
    given = (material / "policy.npz", "--drive", material / "drive.npz")
    done = quant("run", *given, "--out", material / "run", "--tracks", ",".join(THREE), *STEPS, *FEW)
    assert done.code == 0, done.err
    assert "PTQ-GPTQ" in done.out
    return material / "run"


def test_three_tracks_compete_on_the_virtual_board(run: Path) -> None:
    opened = open_run(run)
    assert opened.settings.tracks == tuple(opened.candidates) == THREE
    assert set(opened.evaluations) == {"float", *THREE}
    assert tuple(track.track for track in read_pack(pack_of(run)).tracks) == THREE
    report = opened.devices["virtual"]
    for track in THREE:
        assert opened.parity[track].conforms
        shown = report.tracks[track].conformance
        assert shown.compared > 0 and shown.differing == 0
    assert (run / model_name("peer_encoder", "ptq-gptq")).name == "peer_encoder_ptq-gptq_int8.tflite"


def test_its_step_gives_the_same_bytes_and_unfinishes_the_run(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = contents(copy)
    assert before.pop("manifest.json")
    done = quant("ptq-gptq", copy)
    assert done.code == 0 and "kept:" in done.out
    assert contents(copy) == before


@pytest.mark.parametrize("bad", ["ptq,best", "ptq,ptq", ""])
def test_a_track_that_does_not_exist_is_refused_before_anything_is_written(material: Path, bad: str) -> None:
    out = material / "never"
    done = quant("run", material / "policy.npz", "--drive", material / "drive.npz", "--out", out, "--tracks", bad)
    assert done.code == 2 and "ptq-gptq" in done.err and "--tracks" in done.err
    assert not out.exists()
