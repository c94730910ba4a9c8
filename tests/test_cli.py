"""The command line as a user meets it: exit codes, words, what is written and, after a mistake, what is not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quant import files
from quant.policy import save_policy
from quant.runs.folder import MANIFEST, REPORT, WINNER
from quant.runs.settings import read_settings
from quant.tracks.storage import load_candidate, save_candidate
from tests.commandline import imported_by, quant, spawn
from tests.tracks import strategies

POLICY = strategies.policy(2, ego=6)
OTHER_POLICY = strategies.policy(3, ego=6)
STEPS = ("--qat-steps", "20")
FEW = ("--stress-frames", "2000")


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, another one, and drives of both widths."""
    folder = tmp_path_factory.mktemp("material")
    strategies.write_inputs(folder, POLICY)
    save_policy(OTHER_POLICY, folder / "other.npz")
    strategies.write_drive(folder / "ego5.npz", strategies.frames(700, 1, ego=5, slots=4, most=3))
    strategies.write_drive(folder / "short.npz", strategies.frames(150, 1, ego=6, slots=4, most=3))
    (folder / "garbage.zip").write_bytes(b"no checkpoint at all")
    (folder / "limits.toml").write_text("sucess_drop = 0.1\n")
    (folder / "pyproject.toml").write_text("[tool.other]\nspeed = 3\n")
    (folder / "strict.json").write_text('{"action_disagreement": 0.0, "action_tolerance": 0.0, "model_bytes": 100}')
    return folder


@pytest.fixture(scope="module")
def finished(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = quant("run", material / "policy.npz", "--drive", material / "drive.npz", "--out", folder, *STEPS, *FEW)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory that has to be as empty at the end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    done, imported = imported_by("--help")
    assert done.code == 0, done.err
    assert not {"numpy", "tensorflow", "tf_keras", "torch", "gymnasium", "scipy", "rich"} & imported
    for command in ("run", "import", "dataset", "ptq", "qat", "evaluate", "decide", "show", "train"):
        assert command in done.out


def test_the_module_is_the_command() -> None:
    done = spawn("--version")
    assert done.code == 0 and done.out.startswith("quant, version")


@pytest.mark.parametrize("command", ["run", "import", "dataset", "ptq", "qat", "evaluate", "decide", "show", "train"])
def test_every_command_has_help(command: str) -> None:
    assert quant(command, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage"),
        (("fly",), "No such command"),
        (("ptq",), "Missing argument"),
        (("run", "--pooling", "median"), "median"),
        (("run", "--seed", "-1"), "-1"),
        (("run", "--episodes", "0"), "0"),
        (("run", "--qat-steps", "0"), "0"),
        (("qat", "run", "--qat-steps", "many"), "many"),
        (("run", "--workers", "0"), "0"),
        (("run", "--bogus"), "--bogus"),
        (("import", "policy.npz"), "--out"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_bad_usage(arguments: tuple[str, ...], words: str) -> None:
    done = quant(*arguments)
    assert done.code == 2
    assert words in done.out + done.err


BAD_RUNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no such policy": (("run", "missing.zip", "--drive", "{}/drive.npz"), ("missing.zip", "no such file")),
    "no policy": (("run", "{}/garbage.zip", "--drive", "{}/drive.npz"), ("garbage.zip",)),
    "nothing to judge on": (("run", "{}/policy.npz"), ("nothing to judge", "--drive", "--world")),
    "no such drive": (("run", "{}/policy.npz", "--drive", "missing.npz"), ("missing.npz", "no such file")),
    "no drive": (("run", "{}/policy.npz", "--drive", "{}/garbage.zip"), ("garbage.zip", ".npz")),
    "another policy's drive": (("run", "{}/policy.npz", "--drive", "{}/ego5.npz"), ("ego5.npz:ego", "(N, 6)")),
    "second drive is wrong": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--drive", "{}/ego5.npz"),
        ("ego5.npz:ego",),
    ),
    "too short a drive": (("run", "{}/policy.npz", "--drive", "{}/short.npz"), ("short.npz", "longer drive")),
    "no such world": (("run", "{}/policy.npz", "--world", "no_such_module:Env-v0"), ("no_such_module",)),
    "not a world": (("run", "{}/policy.npz", "--world", "nonsense"), ("nonsense",)),
    "a world of other sizes": (("run", "{}/policy.npz", "--world", "convoy"), ("hint:",)),
    "kwargs are no JSON": (
        ("run", "{}/policy.npz", "--world", "m:E", "--world-kwargs", "{{n: 3"),
        ("--world-kwargs", "not JSON"),
    ),
    "kwargs are no object": (
        ("run", "{}/policy.npz", "--world", "m:E", "--world-kwargs", "[1]"),
        ("--world-kwargs", "object"),
    ),
    "unknown limit": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--limits", "{}/limits.toml"),
        ("sucess_drop", "success_drop"),
    ),
    "a project without limits": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--limits", "{}/pyproject.toml"),
        ("pyproject.toml", "holds no limits", "[tool.quant.acceptance]"),
    ),
    "no such limits": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--limits", "none.toml"),
        ("none.toml", "no such file"),
    ),
    "contradicts the file": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--pooling", "mean"),
        ("pooling", "max"),
    ),
    "a board that is not there": (
        ("run", "{}/policy.npz", "--drive", "{}/drive.npz", "--board", "esp32", "--port", "/dev/no-such-port"),
        ("/dev/no-such-port", "there is no such port"),
    ),
    "import of no policy": (("import", "{}/garbage.zip", "--out", "new"), ("garbage.zip",)),
    "ptq of nothing": (("ptq", "missing"), ("missing", "quant import")),
    "qat of nothing": (("qat", "missing"), ("quant import",)),
    "dataset of nothing": (("dataset", "missing", "--drive", "{}/drive.npz"), ("quant import",)),
    "evaluate of nothing": (("evaluate", "missing"), ("quant import",)),
    "decide of nothing": (("decide", "missing"), ("quant import",)),
    "show of nothing": (("show", "missing"), ("quant import",)),
}


@pytest.mark.parametrize("case", BAD_RUNS)
@pytest.mark.usefixtures("untouched")
def test_bad_input_is_named_and_nothing_is_written(material: Path, case: str) -> None:
    arguments, words = BAD_RUNS[case]
    done = quant(*(argument.format(material) for argument in arguments))
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize("command", ["run", "import"])
def test_a_file_or_a_foreign_folder_as_out_is_left_alone(material: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("precious")
    before = contents(tmp_path)
    drive = ("--drive", material / "drive.npz") if command == "run" else ()
    for out in ("file", "folder", "file/run"):
        done = quant(command, material / "policy.npz", *drive, "--out", tmp_path / out)
        assert done.code == 2 and out in done.err and "--out" in done.err
    assert contents(tmp_path) == before


def test_steps_in_the_wrong_order_say_what_comes_first(material: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def refused(step: str, hint: str) -> None:
        before = contents(run)
        done = quant(step, run)
        assert (done.code, contents(run)) == (2, before)
        assert hint in done.err

    assert quant("import", material / "policy.npz", "--out", run).code == 0
    for step in ("ptq", "qat", "evaluate", "decide"):
        refused(step, f"quant dataset {run}")
    refused("dataset", "--drive")
    refused("show", "not finished")
    assert quant("dataset", run, "--drive", material / "drive.npz").code == 0
    for step in ("evaluate", "decide"):
        refused(step, f"quant ptq {run}")
    assert quant("ptq", run).code == 0
    refused("decide", f"quant evaluate {run}")
    assert quant("evaluate", run).code == 0
    refused("show", "quant decide")
    assert quant("decide", run).code == 0
    assert quant("show", run).code == 0


def test_the_steps_one_by_one_give_the_bytes_of_the_whole(material: Path, finished: Path, tmp_path: Path) -> None:
    """QAT in a process of its own, under another hash seed: its bytes depend on nothing around it."""
    run = tmp_path / "run"
    assert quant("import", material / "policy.npz", "--out", run).code == 0
    assert quant("dataset", run, "--drive", material / "drive.npz").code == 0
    assert quant("ptq", run).code == 0
    assert spawn("qat", run, *STEPS, PYTHONHASHSEED="7").code == 0
    assert quant("evaluate", run).code == 0
    assert quant("stress", run, "--frames", FEW[1]).code == 0
    assert quant("device", run, "--board", "virtual").code == 0
    whole, steps = contents(finished), contents(run)
    assert set(whole) == set(steps)
    assert [name for name in whole if whole[name] != steps[name]] == [MANIFEST]
    files = [json.loads((folder / MANIFEST).read_bytes())["files"] for folder in (finished, run)]
    assert files[0] == files[1]


def test_every_artifact_of_the_plan_is_there(finished: Path) -> None:
    names = set(contents(finished))
    assert names >= {
        *(f"quant_dataset_{part}_{end}.npy" for part in ("peer", "policy") for end in ("inputs", "outputs")),
        *(f"{part}_{track}_int8.tflite" for part in ("peer_encoder", "policy_head") for track in ("ptq", "qat")),
        *(f"eval_{track}.json" for track in ("float", "ptq", "qat")),
        *(f"conversion_{track}.log" for track in ("ptq", "qat")),
        *(
            "loss_curve_qat.csv",
            "quant_eval_scenarios.json",
            "winner.json",
            "manifest.json",
            "report.txt",
            "device_virtual.json",
            "stress.json",
            "stress_frames.npz",
        ),
        "policy_saved_model/saved_model.pb",
    }
    manifest = json.loads((finished / MANIFEST).read_bytes())
    assert set(manifest["files"]) == names - {MANIFEST}
    steps = {name for name in manifest["seconds"] if "CPU" not in name}
    assert steps == {"import", "dataset", "ptq", "qat", "evaluate", "stress", "device"}
    assert set(manifest["seconds"]) - steps == {"evaluate, CPU: held-out frames"}  # there is no world
    assert len((finished / "loss_curve_qat.csv").read_text().splitlines()) > 2


def test_deciding_again_keeps_the_wall_times_and_another_step_does_not(run: Path) -> None:
    manifest = (run / MANIFEST).read_bytes()
    assert quant("decide", run).code == 0
    assert (run / MANIFEST).read_bytes() == manifest
    assert [quant(step, run).code for step in ("evaluate", "decide")] == [0, 0]
    assert json.loads((run / MANIFEST).read_bytes())["seconds"] == {}


def test_settings_remember_the_steps_of_qat(run: Path, material: Path) -> None:
    assert read_settings(run).qat_steps == 20
    assert quant("qat", run, "--qat-steps", "5").code == 0
    assert read_settings(run).qat_steps == 5
    assert quant("dataset", run, "--drive", material / "drive.npz").code == 0
    assert read_settings(run).qat_steps == 5
    assert quant("qat", run).code == 0
    assert "steps=5" in (run / "conversion_qat.log").read_text()


def test_show_prints_the_report_again_and_json_for_machines(finished: Path) -> None:
    before = contents(finished)
    shown = quant("show", finished)
    assert shown.code == 0 and "Deploy" in shown.out
    assert (finished / REPORT).read_text() in shown.out
    verdict = json.loads(quant("show", finished, "--json").out)
    assert verdict == json.loads((finished / WINNER).read_bytes())
    assert contents(finished) == before


@pytest.mark.parametrize("command", ["decide", "show"])
def test_limits_that_cannot_be_met_fail_the_gate(run: Path, material: Path, command: str) -> None:
    done = quant(command, run, "--limits", material / "strict.json")
    assert done.code == 1
    assert "every candidate fails" in done.err and "FAIL" in done.out
    if command == "decide":
        assert json.loads((run / WINNER).read_bytes())["winner"] is None
        # The run is finished all the same, and its verdict can be read.
        assert (run / MANIFEST).is_file()


def test_a_whole_run_that_fails_the_gate_ends_with_1(material: Path, tmp_path: Path) -> None:
    drive = ("--drive", material / "drive.npz", "--out", tmp_path / "run", "--qat-steps", "2", *FEW)
    done = quant("run", material / "policy.npz", *drive, "--limits", material / "strict.json")
    assert done.code == 1 and "every candidate fails" in done.err
    assert quant("show", tmp_path / "run", "--limits", material / "strict.json", "--json").code == 1


def test_unknown_limits_stop_every_step_that_takes_them(run: Path, material: Path) -> None:
    before = contents(run)
    for step in ("evaluate", "decide", "show"):
        done = quant(step, run, "--limits", material / "limits.toml")
        assert done.code == 2 and "sucess_drop" in done.err and "expected: one of" in done.err
    assert contents(run) == before


def refuses(run: Path, hints: dict[str, str]) -> None:
    """Each step is refused with its hint, and none of them touches the folder."""
    before = contents(run)
    for step, hint in hints.items():
        done = quant(step, run)
        assert done.code == 2 and "Traceback" not in done.err
        assert hint in done.err, (step, done.err)
    assert contents(run) == before


def test_after_another_dataset_its_candidates_are_stale(run: Path, material: Path) -> None:
    assert quant("dataset", run, "--drive", material / "drive.npz", "--seed", "1").code == 0
    refuses(run, {"evaluate": "run quant ptq again", "decide": "quant ptq again", "show": "not finished"})
    assert quant("ptq", run).code == 0
    refuses(run, {"evaluate": "run quant qat again", "decide": "quant qat again"})
    assert quant("qat", run).code == 0
    refuses(run, {"decide": "run quant evaluate again"})
    assert quant("evaluate", run).code == 0
    refuses(run, {"decide": "run the board again"})
    assert quant("stress", run).code == 0
    assert quant("device", run, "--board", "virtual").code == 0
    assert quant("show", run).code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda track: track["times"].pop(),
        lambda track: track["times"][-1].update(peers=0),
        lambda track: track.update(repeats=99),
    ],
    ids=["not with every number of peers", "one number of peers twice", "not often enough"],
)
def test_a_board_that_timed_too_little_is_no_evidence(run: Path, change: Callable[[Any], None]) -> None:
    path = run / "device_virtual.json"
    report = json.loads(path.read_bytes())
    change(report["tracks"]["qat"])
    path.write_text(json.dumps(report))
    refuses(run, {"decide": "qat was not timed as a verdict needs it"})
    assert quant("device", run, "--board", "virtual").code == 0


def test_after_another_policy_its_dataset_is_stale(run: Path, material: Path) -> None:
    assert quant("import", material / "other.npz", "--out", run).code == 0
    refuses(run, dict.fromkeys(("ptq", "qat", "evaluate", "decide"), "quant dataset") | {"show": "not finished"})


def test_after_another_candidate_its_evaluation_is_stale(run: Path) -> None:
    (run / "manifest.json").unlink()
    qat = load_candidate(run, "qat")
    model = replace(qat.policy_head, tflite=qat.policy_head.tflite + bytes(16))
    save_candidate(replace(qat, policy_head=model), run)
    refuses(run, {"decide": "run quant evaluate again", "show": "not finished"})


def test_a_track_that_was_not_evaluated_is_named(run: Path) -> None:
    (run / "eval_qat.json").unlink()
    refuses(run, {"decide": f"quant evaluate {run}"})


@pytest.mark.parametrize(
    ("name", "step", "hint"),
    [
        ("quant_dataset_peer_inputs.npy", "ptq", "quant_dataset_peer_inputs.npy"),
        ("quant_dataset.json", "qat", "quant_dataset.json"),
        ("policy.npz", "ptq", "policy.npz"),
        ("policy_head_qat_int8.tflite", "evaluate", "quant qat"),
        ("candidate_ptq.json", "evaluate", "candidate_ptq.json"),
        ("eval_ptq.json", "decide", "eval_ptq.json"),
        ("settings.json", "evaluate", "settings.json"),
        ("manifest.json", "show", "manifest.json"),
        ("report.txt", "show", "report.txt"),
    ],
)
def test_a_file_cut_short_is_named_by_the_step_that_reads_it(run: Path, name: str, step: str, hint: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    refuses(run, {step: hint})


def test_an_interrupted_step_leaves_an_unfinished_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C in the middle of the evaluation, then the same again."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    assert quant("ptq", run).code == 0
    with monkeypatch.context() as patched:
        patched.setattr("quant.runs.steps.asdict", interrupt)  # when the last of the evaluations is written
        done = quant("evaluate", run)
    assert done.code == 130 and "unfinished" in done.err
    refuses(run, {"show": "not finished"})
    assert [quant(step, run).code for step in ("evaluate", "decide", "show")] == [0, 0, 0]


def test_a_run_in_a_world_of_luck_is_refused(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quant_test_lucky.py").write_text(LUCKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    world = ("--world", "quant_test_lucky:Lucky", "--out", tmp_path / "run")
    done = quant("run", material / "policy.npz", *world, *STEPS, *FEW)
    assert done.code == 2 and "not decided by reset(seed=...)" in done.err and "hint:" in done.err


LUCKY = """
import gymnasium as gym
import numpy as np

class Lucky(gym.Env):
    observation_space = gym.spaces.Dict(
        ego=gym.spaces.Box(-9, 9, (6,)), peers=gym.spaces.Box(-9, 9, (8, 6)), peer_mask=gym.spaces.MultiBinary(8)
    )
    action_space = gym.spaces.Box(0, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return self._see(), {}

    def step(self, action):
        over = np.random.random() < 0.1
        return self._see(), 0.0, over, False, {"is_success": True}

    def _see(self):
        return {"ego": np.zeros(6), "peers": np.zeros((8, 6)), "peer_mask": np.ones(8, np.int8)}
"""


def test_an_interrupted_dataset_is_never_taken_for_whole(
    run: Path, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quant.dataset import storage

    written = []

    def third_write_fails(path: Path, array: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        original(path, array)  # type: ignore[arg-type]

    original = files.write_npy
    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_npy", third_write_fails)
        assert quant("dataset", run, "--drive", material / "drive.npz", "--seed", "5").code == 130
    refuses(run, dict.fromkeys(("ptq", "evaluate", "decide"), "quant dataset") | {"show": "not finished"})
