"""A run on a drive that does not hold to the contract: refused with exit code 2, or allowed and told by the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quant.policy import save_policy
from quant.runs.settings import read_settings
from tests.commandline import quant
from tests.observation import drives

ONE = ("--tracks", "ptq", "--no-stress", "--seed", "3")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """``policy.npz`` that states its bounds, ``good.npz``, and ``fast.npz`` with speeds in m/s."""
    save_policy(drives.policy(), tmp_path / "policy.npz")
    made = drives.drive()
    drives.write(tmp_path / "good.npz", made)
    speeds = made["ego"].copy()
    speeds[:, 0] *= 30
    drives.write(tmp_path / "fast.npz", {**made, "ego": speeds})
    return tmp_path


def run(inputs: Path, drive: str, *more: object) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = quant("run", inputs / "policy.npz", "--drive", inputs / drive, "--out", inputs / "run", *ONE, *more)
    return done.code, done.out + done.err


def warnings_of(folder: Path) -> str:
    return "\n".join(json.loads((folder / "winner.json").read_text())["warnings"])


def test_what_is_certain_is_refused_before_anything_is_written(inputs: Path) -> None:
    code, said = run(inputs, "fast.npz")
    assert code == 2 and not (inputs / "run").exists()
    words = " ".join(said.split())
    for word in ("fast.npz", "ego speed (column 0)", "times 30: in m/s", "0 to 1", "--allow column-scaled"):
        assert word in words


def test_what_is_allowed_passes_and_the_verdict_of_the_finished_run_says_so(inputs: Path) -> None:
    code, said = run(inputs, "fast.npz", "--allow", "column-scaled")
    assert code in (0, 1), said
    assert "column-scaled (allowed): fast.npz: ego speed" in warnings_of(inputs / "run")
    assert read_settings(inputs / "run").allow == ("column-scaled",)
    (inputs / "fast.npz").unlink()
    shown = " ".join(quant("show", inputs / "run").out.split())
    assert "column-scaled (allowed)" in shown
    found = json.loads((inputs / "run" / "quant_dataset.json").read_text())["observation_findings"]
    assert [(one["name"], one["allowed"]) for one in found] == [("column-scaled", True)]


def test_what_is_likely_is_a_warning(inputs: Path) -> None:
    arrays = {key: array[::2] for key, array in drives.drive().items()}
    drives.write(inputs / "slow.npz", arrays)
    code, said = run(inputs, "slow.npz")
    assert code in (0, 1), said
    assert "time-step: slow.npz: t_ms: a frame each 200 ms" in warnings_of(inputs / "run")


def test_a_good_drive_gives_no_warning_of_this_kind(inputs: Path) -> None:
    code, said = run(inputs, "good.npz")
    assert code in (0, 1), said
    assert "good.npz" not in warnings_of(inputs / "run")


def test_a_name_that_is_none_is_refused_with_the_nearest(inputs: Path) -> None:
    code, said = run(inputs, "fast.npz", "--allow", "column-scale")
    assert code == 2 and "did you mean column-scaled?" in said


def test_the_steps_take_what_is_allowed_too_and_keep_it(inputs: Path) -> None:
    folder = inputs / "run"
    assert quant("import", inputs / "policy.npz", "--out", folder).code == 0
    assert quant("dataset", folder, "--drive", inputs / "fast.npz").code == 2
    assert quant("dataset", folder, "--drive", inputs / "fast.npz", "--allow", "column-scaled").code == 0
    assert quant("dataset", folder, "--drive", inputs / "fast.npz").code == 0


def test_the_observation_is_shown_whatever_is_wrong_with_a_drive(inputs: Path) -> None:
    shown = quant(
        "observation",
        inputs / "policy.npz",
        "--drive",
        inputs / "fast.npz",
        "-o",
        inputs / "observation.toml",
        "--json",
    )
    assert shown.code == 0, shown.err
    assert [one["name"] for one in json.loads(shown.out)["observation_findings"]] == ["column-scaled"]


def test_a_drive_under_other_keys_is_told_which_it_holds(inputs: Path) -> None:
    made = drives.drive()
    names = {"ego": "obs_ego", "peers": "obs_peers", "peer_mask": "obs_peer_mask", "t_ms": "timestamps_ms"}
    drives.write(inputs / "other.npz", {names[key]: array for key, array in made.items()})
    code, said = run(inputs, "other.npz")
    words = " ".join(said.split())
    assert code == 2 and "lacks ego, peers, peer_mask" in words
    for key, name in names.items():
        assert f"{name} {made[key].shape} {made[key].dtype}, likely {key}" in words
    assert 'ego=d["obs_ego"]' in words and 't_ms=d["timestamps_ms"]' in words


def test_keys_are_guessed_by_their_shapes_where_names_say_nothing(inputs: Path) -> None:
    made = drives.drive()
    drives.write(inputs / "other.npz", {"a": made["ego"], "b": made["peers"], "c": made["peer_mask"]})
    _, said = run(inputs, "other.npz")
    words = " ".join(said.split())
    assert "a (1500, 6) float32, likely ego" in words and "c (1500, 8) float32, likely peer_mask" in words


@pytest.mark.parametrize("key", ["timestamps_ms", "time", "t"])
def test_times_under_another_key_are_a_warning(inputs: Path, key: str) -> None:
    made = drives.drive()
    times = made.pop("t_ms")
    drives.write(inputs / "other.npz", {**made, key: times[::-1]})
    shown = quant(
        "observation",
        inputs / "policy.npz",
        "--drive",
        inputs / "other.npz",
        "-o",
        inputs / "observation.toml",
        "--json",
    )
    found = json.loads(shown.out)["observation_findings"]
    assert [(one["name"], one["certain"]) for one in found] == [("unknown-time-key", False)]
    assert key in found[0]["found"] and "runs backwards" in found[0]["found"]


def test_other_arrays_beside_the_drive_are_no_times(inputs: Path) -> None:
    made = drives.drive()
    others = {"action": np.zeros(drives.FRAMES), "notes": np.array(["x"]), "distance": np.arange(drives.FRAMES)}
    drives.write(inputs / "other.npz", {**made, **others})
    assert (
        quant("observation", inputs / "policy.npz", "--drive", inputs / "other.npz", "-o", inputs / "o.toml").code == 0
    )


def test_a_finished_run_refuses_a_later_drive_that_does_not_hold(inputs: Path) -> None:
    code, said = run(inputs, "good.npz")
    assert code in (0, 1), said
    later = quant("evaluate", inputs / "run", "--drive", inputs / "fast.npz")
    assert later.code == 2 and "times 30: in m/s" in " ".join(later.err.split())
