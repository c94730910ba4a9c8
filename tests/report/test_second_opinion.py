"""`quant sumo`: a second opinion is a part of the run, is shown with it, and decides nothing."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from quant.commands.sumo import FOLLOWING
from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import FLOAT
from quant.report.second_opinion import second_opinion
from quant.report.text import as_text
from quant.runs import steps
from quant.runs.folder import REPORT, SECOND_OPINION, SETTINGS, WINNER
from quant.runs.manifest import check_manifest, recorded_seconds
from quant.runs.reading import open_run, read_run
from quant.worlds.sumo import MODELS
from tests.commandline import quant

ASK = ("--episodes", 24, "--lossy-episodes", 8, "--workers", 1)


@pytest.fixture(scope="module")
def answered(driven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, asked for a second opinion."""
    folder = tmp_path_factory.mktemp("sumo") / "run"
    shutil.copytree(driven, folder)
    done = quant("sumo", folder, *ASK)
    assert done.code == 0 and "Second opinion: SUMO" in done.out
    return folder


def test_the_verdict_stays(driven: Path, answered: Path) -> None:
    for name in (WINNER, SETTINGS, "eval_float.json"):
        assert (driven / name).read_bytes() == (answered / name).read_bytes()
    assert recorded_seconds(answered) == recorded_seconds(driven)


def test_it_is_a_part_of_the_run(answered: Path) -> None:
    run = open_run(answered)
    assert SECOND_OPINION in check_manifest(answered)["files"]
    assert run.second is not None and run.second.episodes == {"nominal": 24, "lossy": 8}
    assert list(run.second.sumo) == [FLOAT, "ptq", "qat"]
    assert run.second.sentences[0][:40] in (answered / REPORT).read_text()
    assert run.second.sentences[0][:40] in quant("show", answered).out
    assert json.loads(quant("show", answered, "--json").out)["second_opinion"] == run.second.summary()


def test_the_same_again_as_json(answered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(answered, folder)
    before = (folder / SECOND_OPINION).read_bytes()
    document = json.loads(quant("sumo", folder, *ASK, "--json").out)
    assert (folder / SECOND_OPINION).read_bytes() == before
    assert {"agrees", "sentences", "blind", "figures", "sumo_version"} <= set(document)
    # Two worlds, two slices; float, two candidates and the gate's two actors.
    assert len(document["figures"]) == 2 * 2 * 5


def test_tables_are_legible_at_80_columns(answered: Path) -> None:
    opinion = open_run(answered).second
    assert opinion is not None
    lines = as_text(second_opinion(opinion), 80).splitlines()
    assert max(map(len, lines)) <= 80
    # No cell is broken: five drivers have their two rows in both slices.
    assert sum(bool(re.search(r"(convoy|SUMO) +[0-9.]+% [0-9.]+ ", line)) for line in lines) == 2 * 2 * 5


def test_it_is_stale_once_a_candidate_is_another(answered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(answered, folder)
    text = (folder / SECOND_OPINION).read_text()
    other = json.loads(text)["evaluations"]["ptq"]["sha256"]["policy_head"]
    (folder / SECOND_OPINION).write_text(text.replace(other, "0" * 64))
    with pytest.raises(StaleError, match="another ptq"):
        read_run(folder)
    steps.second_opinion(folder, episodes={"nominal": 2, "lossy": 1}, workers=1)
    assert open_run(folder).second is not None


def test_the_command_knows_every_model() -> None:
    assert tuple(MODELS) == FOLLOWING


def test_a_run_of_another_world_and_a_missing_library_are_refused(
    recorded: Path, driven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="the run's world is none"):
        steps.second_opinion(recorded)
    monkeypatch.setitem(sys.modules, "libsumo", None)
    done = quant("sumo", driven)
    assert done.code == 2 and "quant[sumo]" in done.err
    assert check_manifest(driven)
    assert quant("run", "--sumo", "--out", driven.parent / "never").code == 2
    assert not (driven.parent / "never").exists()
