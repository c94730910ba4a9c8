"""What a new user mistypes or mixes up: each error says what, where, what was expected, and what to do."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant.errors import did_you_mean, nearest
from tests.commandline import quant
from tests.tracks import strategies

PACKAGE = Path(__file__).parents[1] / "quant"
WORLD = """
import gymnasium

class Road(gymnasium.Env):
    pass

gymnasium.register("HintRoad-v0", entry_point="hint_world:Road")
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a drive, and files that are neither."""
    folder = tmp_path_factory.mktemp("hints")
    strategies.write_inputs(folder)
    (folder / "limits.toml").write_text("sucess_drop = 0.1\n")
    (folder / "boards.yaml").write_text("boards: {truck1: {chip: esp32, port: /dev/not-there}}\n")
    (folder / "hint_world.py").write_text(WORLD)
    (folder / "notes.txt").write_text("no checkpoint")
    settings = {"schema_version": 1, "checkpoint": "x", "drives": [], "tracks": ["ptq", "qat"]}
    for run, changes in (("runs/a", {}), ("runs/mine", {}), ("runs/other", {}), ("old", {"schema_version": 0})):
        (folder / run).mkdir(parents=True)
        (folder / run / "settings.json").write_text(json.dumps(settings | changes))
    (folder / "empty").mkdir()
    return folder


DRIVE = ("--drive", "drive.npz")
MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a command": (("shwo", "runs/mine"), ("'shwo'", "'show'")),
    "an option": (("run", "policy.npz", "--track", "ptq"), ("--tracks",)),
    "a file's name": (("run", "polcy.npz", *DRIVE), ("polcy.npz", "no such file", "did you mean policy.npz?")),
    "a drive's name": (("run", "policy.npz", "--drive", "drve.npz"), ("did you mean drive.npz?",)),
    "a folder's name": (("run", "polcies/policy.npz", *DRIVE), ("there is no folder polcies",)),
    "no checkpoint": (("run", "notes.txt", *DRIVE), ("not a checkpoint", "Stable-Baselines3 zip", "copied whole")),
    "drive for policy": (("run", "drive.npz", *DRIVE), ("looks like a recorded drive", "--drive FILE")),
    "policy for drive": (("run", "policy.npz", "--drive", "policy.npz"), ("lacks ego", "looks like a checkpoint")),
    "neither drive nor world": (("run", "policy.npz"), ("nothing to judge", "--drive", "--world")),
    "a track": (("run", "policy.npz", *DRIVE, "--tracks", "ptq,qta"), ("--tracks", "did you mean qat?")),
    "a limit": (("run", "policy.npz", *DRIVE, "--limits", "limits.toml"), ("did you mean success_drop?",)),
    "the convoy": (("run", "policy.npz", "--world", "convoi"), ("module:EnvId", "did you mean convoy?")),
    "a world's module": (("run", "policy.npz", "--world", "hint_wrld:X"), ("did you mean hint_world?",)),
    "a world's name": (("run", "policy.npz", "--world", "hint_world:HintRod-v0"), ("did you mean HintRoad-v0?",)),
    "a board": (("board", "info", "--board", "truk1"), ("--board", "boards.yaml", "did you mean truck1?")),
    "a board without hardware": (("board", "info", "--board", "virtul"), ("did you mean virtual?",)),
    "a port": (("board", "info", "--port", "/dev/not-there"), ("no such port", "quant board list")),
    "a run": (("show", "runs/mien"), ("no such run folder", "did you mean runs/mine?")),
    "a run's place": (("show", "mine"), ("did you mean runs/mine?",)),
    "a run's short name": (("show", "a"), ("did you mean runs/a?",)),
    "the folder of runs": (("show", "runs"), ("not a run folder", "it holds runs: runs/a, runs/mine, runs/other")),
    "an empty folder": (("show", "empty"), ("not a run folder", "settings.json", "quant run")),
    "a file for a run": (("show", "notes.txt"), ("is a file", "a run folder")),
    "an unfinished run": (("show", "runs/mine"), ("not finished", "quant decide runs/mine")),
    "a run of another version": (("show", "old"), ("schema_version 1", "make it again")),
    "a candidate": (("explain", "runs/mine", "--track", "qatt"), ("ptq or qat", "did you mean qat?")),
    "a candidate to come": (("explain", "runs/mine", "--track", "ptq-gptq"), ("make it: quant ptq-gptq runs/mine",)),
    "no baseline": (("compare", "runs/mine"), ("baseline.json", "quant accept RUN")),
    "out into the folder of runs": (("run", "policy.npz", *DRIVE, "--out", "runs"), ("not a run's", "--out runs/NAME")),
    "an extra's name": (("completion", "bsh"), ("bash", "zsh", "fish")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_what_to_do(mistake: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept)
    monkeypatch.delenv("QUANT_BOARD_MAP", raising=False)
    before = sorted(kept.rglob("*"))
    arguments, words = MISTAKES[mistake]
    done = quant(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    assert [path for path in sorted(kept.rglob("*")) if "__pycache__" not in path.parts] == [
        path for path in before if "__pycache__" not in path.parts
    ]


def test_only_what_is_alike_is_proposed() -> None:
    assert nearest("qta", ("ptq", "qat", "int16x8")) == "qat"
    assert nearest("something else", ("ptq", "qat")) is None
    assert did_you_mean("virtul", ("virtual", "linux")) == "did you mean virtual?"
    assert did_you_mean("x", ()) is None


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every error for users that is made in the package, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Call) and name in ("InputError", "StaleError", "LinkError"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_error_says_what_was_expected_or_what_to_do() -> None:
    found = list(raised())
    assert len(found) > 300
    silent = [place for place, call in found if not {key.arg for key in call.keywords} & {"expected", "hint"}]
    assert silent == []
