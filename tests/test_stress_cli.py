"""`quant stress`, and the step of a run: what it writes, what the verdict says of it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quant.evaluation.stress.found import GROUPS
from quant.files import sha256
from quant.tracks.storage import load_candidate, save_candidate
from tests.commandline import quant
from tests.tracks import strategies

FRAMES = 3000
NAMES = ("stress.json", "stress_frames.npz")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    strategies.write_inputs(folder)
    (folder / "loose.toml").write_text("action_disagreement = 1.0\nworst_deviation = 0.9\n")
    return folder


@pytest.fixture(scope="module")
def finished(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    drive = ("--drive", material / "drive.npz", "--limits", material / "loose.toml", "--qat-steps", "5")
    done = quant("run", material / "policy.npz", *drive, "--out", folder, "--stress-frames", FRAMES)
    assert done.code == 0, done.err
    assert "stress" in done.err
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def document(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def criteria(run: Path, track: str = "ptq") -> dict[str, Any]:
    return {one["name"]: one for one in document(run / "winner.json")["candidates"][track]["criteria"]}


def digests(run: Path) -> list[str]:
    return [sha256((run / name).read_bytes()) for name in NAMES]


def test_a_run_is_stressed_and_its_verdict_holds_what_was_found(finished: Path) -> None:
    manifest, stress = document(finished / "manifest.json"), document(finished / "stress.json")
    assert {*NAMES} <= manifest["files"].keys()
    assert "stress" in manifest["seconds"]
    assert (stress["frames"], stress["seed"], set(stress["tracks"])) == (FRAMES, 0, {"ptq", "qat"})
    for track, shown in stress["tracks"].items():
        own = criteria(finished, track)
        assert own["missed_action"]["value"] == shown["within"]["missed"]
        assert own["false_action"]["value"] == shown["within"]["false"]
        assert own["worst_deviation"]["value"] == shown["within"]["worst"]
        assert own["worst_deviation"]["limit"] == 0.9
        assert own["missed_action"]["reason"].startswith("nobody declared the bounds of ")
    assert f"Stress on {FRAMES:,} frames" in (finished / "report.txt").read_text("utf-8")
    assert document(finished / "settings.json")["stress_frames"] == FRAMES


def test_stressing_again_finishes_the_run_with_the_limits_it_had(run: Path) -> None:
    done = quant("stress", run, "--frames", "2000", "--seed", "3", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["frames"], told["seed"]) == (2000, 3)
    assert told == {"run": str(run), **document(run / "stress.json")}
    assert criteria(run)["worst_deviation"]["limit"] == 0.9
    assert (run / "manifest.json").is_file()


def test_the_same_bytes_whatever_the_workers(run: Path, monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    from quant.evaluation.stress import stress

    monkeypatch.setattr(stress, "WORTH_A_POOL", 0)
    assert quant("stress", run, "--workers", "2").code == 0
    assert digests(run) == digests(finished)


def test_the_table_says_what_was_found(run: Path) -> None:
    done = quant("stress", run, "--frames", "1000")
    assert done.code == 0, done.err
    for words in ("missed : false", "float not settled", "saturated inputs", "just beyond the bounds", "at its worst"):
        assert words in done.out


def test_a_run_that_was_told_not_to_says_that_nobody_looked(run: Path, material: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    source = ("--drive", material / "drive.npz", "--limits", material / "loose.toml", "--tracks", "ptq")
    done = quant("run", material / "policy.npz", *source, "--out", folder, "--no-stress")
    assert done.code == 0, done.err
    assert not (folder / "stress.json").exists()
    assert "nobody looked for the worst" in done.out
    own = criteria(folder)
    assert {own[name]["outcome"] for name in ("missed_action", "false_action", "worst_deviation")} == {"unproven"}
    assert own["missed_action"]["reason"] == "not stressed; quant stress RUN does it"
    assert quant("stress", folder, "--frames", "1000").code == 0
    assert criteria(folder)["missed_action"]["value"] is not None


def test_a_run_that_is_not_decided_yet_stays_so(run: Path) -> None:
    for name in ("manifest.json", "winner.json"):
        (run / name).unlink()
    assert quant("stress", run, "--frames", "1000").code == 0
    assert not (run / "manifest.json").exists()
    assert quant("decide", run).code in (0, 1)
    assert criteria(run)["missed_action"]["value"] is not None


def test_after_another_candidate_its_stress_is_stale(run: Path, material: Path) -> None:
    (run / "device_virtual.json").unlink()
    qat = load_candidate(run, "qat")
    head = replace(qat.policy_head, tflite=qat.policy_head.tflite + bytes(16))
    save_candidate(replace(qat, policy_head=head), run)
    assert quant("evaluate", run).code == 0
    done = quant("decide", run)
    assert done.code == 2
    assert "another qat" in done.err and "quant stress" in done.err
    assert quant("stress", run, "--frames", "1000").code == 0
    assert quant("decide", run, "--limits", material / "loose.toml").code == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_short_is_named(run: Path, name: str) -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-30])
    (run / "manifest.json").unlink()
    done = quant("decide", run)
    assert done.code == 2
    assert name in done.err


def test_explain_takes_the_worst_frames_apart(run: Path) -> None:
    done = quant("explain", run, "--stress", "--track", "ptq", "--json", "--worst", "3")
    assert done.code == 0, done.err
    found = json.loads(done.out)["tracks"]["ptq"]
    held_out = json.loads(quant("explain", run, "--track", "ptq", "--json").out)["tracks"]["ptq"]
    worst = {name: one["measured"]["overall"]["max_error"] for name, one in {"found": found, "seen": held_out}.items()}
    assert worst["found"] > worst["seen"]
    assert {one["origin"] for one in found["worst"]} <= set(GROUPS)
    (run / "stress.json").unlink()
    done = quant("explain", run, "--stress")
    assert done.code == 2 and "quant stress" in done.err


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = document(path)
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["ego_input"]["gain"].__setitem__(0, value["ego_input"]["gain"][0] * 1.5),
        lambda value: value["peer_input"]["offset"].__setitem__(0, 3.0),
        lambda value: value["ego_input"].__setitem__("residual", 4),
        lambda value: value.__setitem__("pooling", "sum" if value["pooling"] != "sum" else "max"),
    ],
)
def test_an_edited_description_is_not_what_was_evaluated(run: Path, change: Callable[[Any], object]) -> None:
    edit(run / "candidate_ptq.json", change)
    (run / "manifest.json").unlink()
    done = quant("decide", run)
    assert done.code == 2
    assert "eval_ptq.json" in done.err and "description" in done.err and "quant evaluate again" in done.err


def test_boards_and_stress_are_of_an_earlier_description_too(run: Path, material: Path) -> None:
    edit(run / "candidate_ptq.json", lambda value: value["ego_input"]["gain"].__setitem__(0, 1.0))
    assert quant("evaluate", run).code == 0
    board = quant("decide", run)
    assert board.code == 2 and "the board ran another ptq" in board.err
    (run / "device_virtual.json").unlink()
    found = quant("decide", run)
    assert found.code == 2 and "another ptq" in found.err and "quant stress" in found.err
    assert quant("stress", run, "--frames", "1000").code == 0
    assert quant("decide", run, "--limits", material / "loose.toml").code in (0, 1)


def test_an_edited_contract_is_not_what_the_dataset_was_made_with(run: Path) -> None:
    path = run / "observation.toml"
    text = path.read_text("utf-8")
    high = next(line for line in text.splitlines() if line.startswith("high = "))
    path.write_text(text.replace(high, "high = 77.0", 1))
    (run / "manifest.json").unlink()
    done = quant("decide", run)
    assert done.code == 2 and "observation.toml" in done.err and "quant dataset" in done.err


def test_columns_that_are_cut_are_the_candidates_own(run: Path) -> None:
    edit(run / "stress.json", lambda value: value["tracks"]["ptq"].__setitem__("cut", ["ego speed"]))
    (run / "manifest.json").unlink()
    done = quant("decide", run)
    assert done.code == 2 and "cut" in done.err and "quant stress" in done.err


def test_the_number_of_frames_is_the_runs_own_where_none_is_asked_for(run: Path) -> None:
    done = quant("stress", run, "--json")
    assert json.loads(done.out)["frames"] == FRAMES
    assert "1000000]" not in quant("stress", "--help").out
