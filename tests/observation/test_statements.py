"""What a user's file says, held against the rest: what cannot be is refused, what is in another unit is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quant.policy import save_policy
from tests.commandline import quant
from tests.observation import drives

EGO = "[[ego]]\n{}\n[[ego]]\n{}\n" + "[[ego]]\n" * 4
PEERS = "[[peers]]\n{}\n" + "[[peers]]\n" * 5


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """``policy.npz`` that states the bounds of its ego, and ``drive.npz``."""
    save_policy(drives.policy(), tmp_path / "policy.npz")
    drives.write(tmp_path / "drive.npz", drives.drive())
    return tmp_path


def run(inputs: Path, text: str, *more: object, drive: str = "drive.npz") -> tuple[int, str]:
    (inputs / "mine.toml").write_text(text)
    given = ("--drive", inputs / drive, "--observation", inputs / "mine.toml", "--out", inputs / "run")
    done = quant("run", inputs / "policy.npz", *given, "--tracks", "ptq", "--no-stress", *more)
    return done.code, done.out + done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EGO.format("high = -2.0", ""), "ego[0]: low 0 (checkpoint) is not below high -2 (file)"),
        (EGO.format("low = 1.5", ""), "ego[0]: low 1.5 (file) is not below high 1 (checkpoint)"),
        (EGO.format("copy_of = 1", "copy_of = 0"), "copies go round in a circle"),
        (EGO.format("", 'name = "speed"'), "two columns of ego are called speed"),
        (PEERS.format('name = "rel_y"'), "two columns of peers are called rel_y"),
    ],
)
def test_what_does_not_go_together_is_refused(inputs: Path, text: str, words: str) -> None:
    code, said = run(inputs, text)
    assert code == 2 and words in said
    assert not (inputs / "run" / "winner.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            EGO.format("high = 30.0", ""),
            "ego speed: goes from 0 to 30, 30 times as wide as the checkpoint has it; likely:",
        ),
        (
            PEERS.format("high = 100.0"),
            "peers rel_x: goes from 0 to 100, 100 times as wide as the preset has it; likely:",
        ),
        (EGO.format("high = 1e30", ""), "1e+30 times as wide"),
    ],
)
def test_a_contract_in_other_units_is_refused_unless_allowed(inputs: Path, text: str, words: str) -> None:
    code, said = run(inputs, text)
    assert code == 2 and words in said and "--allow bound-units" in said


def test_what_is_allowed_stands_in_the_verdict(inputs: Path) -> None:
    code, _ = run(inputs, EGO.format("high = 30.0", ""), "--allow", "bound-units")
    assert code in (0, 1)
    warnings = json.loads((inputs / "run" / "winner.json").read_text())["warnings"]
    assert any(one.startswith("bound-units (allowed)") for one in warnings)


def test_a_correction_of_a_bound_is_the_users(inputs: Path) -> None:
    """Twice as far as the checkpoint says is no other unit."""
    code, said = run(inputs, EGO.format("high = 2.0", ""))
    assert code in (0, 1), said
    contract = json.loads((inputs / "run" / "winner.json").read_text())["coverage"]
    assert contract[0]["declared"] == [0.0, 2.0] and contract[0]["declared_by"] == ["checkpoint", "file"]


def with_one_rel_y(inputs: Path, value: float) -> str:
    """The name of the same drive with another rel_y of one peer in one frame."""
    arrays = drives.drive()
    row, slot = np.argwhere(arrays["peer_mask"] > 0)[70]
    arrays["peers"][row, slot, 1] = value
    return drives.write(inputs / "odd.npz", arrays).name


def test_one_value_that_no_vehicle_can_have_is_refused_though_only_a_preset_bounds_it(inputs: Path) -> None:
    code, said = run(inputs, "", drive=with_one_rel_y(inputs, 3000))
    assert code == 2 and "rel_y" in said and "goes to 3000" in said and "--allow out-of-bounds" in said


def test_recordings_that_go_further_than_is_usual_are_told(inputs: Path) -> None:
    code, said = run(inputs, "", drive=with_one_rel_y(inputs, 1.9))
    assert code in (0, 1) and "out-of-bounds: odd.npz: peers' rel_y" in " ".join(said.split())


def test_bounds_that_only_a_preset_has_are_said_to_be_nobodys_word(inputs: Path) -> None:
    code, said = run(inputs, "")
    told = " ".join(said.split())
    assert code in (0, 1) and "nobody stated these bounds: peers rel_x 0 to 100 m" in told
    stated = told.partition("nobody stated these bounds")[2].partition("Warning")[0]
    assert "ego speed" not in stated
