"""Finished runs to report on: one that drove in the convoy world, and one of recorded frames and continuous actions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.acceptance.limits import Limits
from quant.boards.conformance import Conformance
from quant.boards.pack import build_pack, read_pack
from quant.boards.report import STAGE_NAMES, DeviceReport, Identity, Memory, ModelReport, PeerTimes, Quantiles
from quant.boards.report import TrackReport as BoardTrack
from quant.files import write_json
from quant.policy import Box, Policy, load_policy, save_policy
from quant.report.html import page
from quant.report.material import Material
from quant.runs import steps
from quant.runs.folder import POLICY
from quant.runs.manifest import check_manifest
from quant.runs.pages import _material
from quant.runs.reading import open_run
from quant.runs.settings import Settings, read_settings, write_settings
from quant.runs.steps import decide, evaluate, make_dataset, make_track
from quant.tracks.candidate import Candidate
from quant.tracks.storage import save_candidate, save_curve
from quant.worlds.reference import reference_policy_path
from tests.tracks import strategies

TICKS = 240_000_000
"""Ticks a second of the board's clock."""
HOSTILE = '<script x="|">*&.zip'
"""A checkpoint's name that must stay text."""


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference policy with two candidates, the second a coarser copy of the first, 120 + 40 episodes, a board."""
    folder = tmp_path_factory.mktemp("report") / "driven"
    settings = Settings("reference policy", world="convoy", seed=0, episodes={"nominal": 120, "lossy": 40})
    return _run(folder, load_policy(reference_policy_path()), settings, coarser=0.6)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy of two continuous components on recorded frames; its checkpoint has a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    policy = strategies.policy(2, space=Box((0.0, -1.0), (1.0, 2.0)))
    drive = strategies.write_drive(folder / "drive.npz", strategies.frames(700, 1, most=3))
    return _run(folder / "recorded", policy, Settings(HOSTILE, (str(drive),)), coarser=0.97)


@pytest.fixture(scope="session")
def stressed_material(driven: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Of :func:`driven`, with what a stress test found."""
    folder = Path(shutil.copytree(driven, tmp_path_factory.mktemp("report") / "stressed"))
    steps.stress(folder, frames=1500, workers=1)
    return material_of(folder)


@pytest.fixture(scope="session")
def stressed_page(stressed_material: Material) -> str:
    """Of :func:`stressed_material`."""
    return page(stressed_material)


def material_of(folder: Path) -> Material:
    """What a page about a finished run is made of."""
    return _material(open_run(folder), check_manifest(folder))


@pytest.fixture(scope="session")
def driven_material(driven: Path) -> Material:
    """Of :func:`driven`."""
    return material_of(driven)


@pytest.fixture(scope="session")
def driven_page(driven_material: Material) -> str:
    """Of :func:`driven`."""
    return page(driven_material)


@pytest.fixture(scope="session")
def recorded_page(recorded: Path) -> str:
    """Of :func:`recorded`."""
    return page(material_of(recorded))


def _run(folder: Path, policy: Policy, settings: Settings, coarser: float) -> Path:
    """What `quant run` does, without what takes long: neither TensorFlow nor many frames."""
    folder.mkdir()
    write_settings(settings, folder)
    save_policy(policy, folder / POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "DATASET_EPISODES", {"nominal": 40, "lossy": 20})
        make_dataset(folder, settings)
    ptq = make_track(folder, "ptq")
    gain = (ptq.peer_input.gain * np.float32(coarser)).astype(np.float32)
    qat = replace(ptq, track="qat", peer_input=replace(ptq.peer_input, gain=gain))
    save_candidate(qat, folder)
    save_curve("qat", ((0, float("nan"), 0.02), (50, 0.03, 0.015), (100, 0.02, 0.012)), folder)
    write_settings(replace(read_settings(folder), tracks=("ptq", "qat")), folder)
    board = _board({"ptq": ptq, "qat": qat})
    board.save(folder)
    figures = [{"test": "tests/hil/test_soak.py::test_soak[ptq]", "name": "decisions", "value": 1234, "unit": "frames"}]
    write_json(folder / "hil_rig.json", {"schema_version": 1, "pack_sha256": board.pack_sha256, "figures": figures})
    evaluate(folder, Limits(), workers=1)
    decide(folder, Limits(), {"ptq": 1.25})
    return folder


def _board(candidates: dict[str, Candidate]) -> DeviceReport:
    board = Identity(
        "rig", "emulated", "esp32", "3.0", "02:00:00:00:00:01", 240, 1, "esp32", "1", "0" * 64, "", "", "", TICKS
    )
    tracks = {
        track: _board_track(candidate, 1 + 0.25 * place) for place, (track, candidate) in enumerate(candidates.items())
    }
    pack = read_pack(build_pack(list(candidates.values()))).sha256
    return DeviceReport(board, pack, tracks, Memory(None, 90_000, 4_000, None, None, None, None, None))


def _board_track(candidate: Candidate, slower: float) -> BoardTrack:
    models: dict[str, ModelReport] = {
        model.part: ModelReport(len(model.tflite), model.sha256, None, None, ("FULLY_CONNECTED",))
        for model in (candidate.peer_encoder, candidate.policy_head)
    }

    def time(peers: int) -> Quantiles:
        return Quantiles(*(slower * (100.0 * (peers + 1) + k) for k in range(4)))

    times = tuple(PeerTimes(n, {stage: time(n) for stage in STAGE_NAMES}) for n in range(candidate.max_peers + 1))
    return BoardTrack(models, Conformance(10, 0, {}, None), 1, 100, times)
