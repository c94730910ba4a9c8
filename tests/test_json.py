"""``--json``: every command that prints figures has it, and then prints one JSON document and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from quant.commands.main import cli
from quant.commands.project import start_project
from quant.runs.folder import WINNER
from quant.tracks.registry import TRACKS
from tests.commandline import quant, spawn
from tests.tracks import strategies

ROOT = Path(__file__).parents[1]
WITHOUT = {
    "board serve": "serves, and prints the name of its port",
    "completion": "prints a script",
    "init": "prints no figures",
    "train": "prints JSON as it is",
}
ELSEWHERE = {"sweep", "sumo", "stress"}
"""Commands whose own tests look at their JSON: what they need takes its time."""

ALIKE = set(TRACKS) - {"ptq", "ptq-gptq"}
"""Tracks take their time, and one function prints what any of them made."""

VIRTUAL = ("--board", "virtual")
KEYS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "import": (("{material}/policy.npz", "--out", "{scratch}"), {"run", "policy_sha256", "facts"}),
    "dataset": (
        ("{run}", "--drive", "{material}/drive.npz"),
        {"run", "dataset_sha256", "frames", "peers", "splits"},
    ),
    **{track: (("{run}",), {"run", "track", "bytes", "sha256", "log"}) for track in TRACKS},
    "observation": (("{material}/policy.npz", "-o", "{scratch}.toml"), {"file", "contract"}),
    "unseen": (("{run}",), {"run", "tracks", "not_left_out"}),
    "evaluate": (("{run}",), {"run", "evaluations"}),
    "device": (("{run}", *VIRTUAL), {"winner", "status", "candidates"}),
    "decide": (("{run}",), {"winner", "status", "candidates"}),
    "show": (("{run}",), {"winner", "status", "candidates"}),
    "report": (("{run}",), {"run", "page", "summary"}),
    "accept": (("{run}", "--baseline", "{scratch}.json"), {"baseline", "run", "winner", "status", "sha256"}),
    "compare": (("{run}", "{run}"), {"findings", "headline"}),
    "explain": (("{run}", "--worst", "1"), {"tracks", "contrast"}),
    "doctor": ((), {"able", "checks"}),
    "pack": (("{run}", "--output", "{scratch}.bin"), {"file", "bytes", "sha256"}),
    "flash": (("{run}", *VIRTUAL), {"board", "wrote", "why", "models"}),
    "board list": ((), {"name", "port", "state"}),
    "board info": (("{run}", *VIRTUAL), {"hello", "models", "stats"}),
    "board bench": (("{run}", *VIRTUAL, "--repeats", "2", "--peers", "1"), {"evidence", "warmup", "repeats", "times"}),
    "board decide": (("{run}", *VIRTUAL, "--frame", "1"), {"track", "values", "host", "microseconds", "evidence"}),
}
"""Arguments, and keys of the document (of its items where it is a list)."""


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


WITH = {name for name, command in commands() if any("--json" in parameter.opts for parameter in command.params)}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy and a drive."""
    return strategies.write_inputs(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def made(material: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A finished run of one track, and what ``quant run --json`` printed."""
    folder = tmp_path_factory.mktemp("made") / "run"
    source = (material / "policy.npz", "--drive", material / "drive.npz")
    done = quant(
        "run", *source, "--tracks", "ptq-gptq", "--qat-steps", "5", "--stress-frames", "2000", "--out", folder, "--json"
    )
    assert done.code == 0, done.err
    return folder, done.out, done.err


def test_every_command_that_prints_figures_has_json() -> None:
    assert {name for name, _ in commands()} - WITH == WITHOUT.keys()


def test_every_json_is_looked_at() -> None:
    assert {*KEYS, "run"} == WITH - ELSEWHERE


def test_a_run_prints_its_verdict_alone_and_its_progress_beside(made: tuple[Path, str, str]) -> None:
    folder, out, err = made
    assert json.loads(out) == json.loads((folder / WINNER).read_bytes())
    assert "evaluate" in err


@pytest.mark.parametrize("command", [command for command in KEYS if command not in ALIKE])
def test_one_document_with_its_keys(
    command: str,
    made: tuple[Path, str, str],
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(made[0], tmp_path / "run"))
    arguments, keys = KEYS[command]
    filled = (one.format(run=run, material=material, scratch=tmp_path / "scratch") for one in arguments)
    done = quant(*command.split(), *filled, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out, parse_constant=_refuse)
    for one in document if isinstance(document, list) else [document]:
        assert keys <= one.keys()


def test_the_keys_are_the_documented_ones() -> None:
    rows = re.findall(r"^\| (`[a-z].*) \| (.*) \|$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    said = {name: row[1] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    for command, (_, keys) in KEYS.items():
        row = said["show" if command in ("device", "decide") else "ptq" if command in TRACKS else command]
        if "winner.json" not in row:
            assert {key for key in keys if f"`{key}`" not in row} == set(), command


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_a_verdict_without_a_winner_ends_with_1_and_is_still_a_document(
    made: tuple[Path, str, str], tmp_path: Path
) -> None:
    limits = tmp_path / "strict.json"
    limits.write_text('{"model_bytes": 100}')
    run = Path(shutil.copytree(made[0], tmp_path / "run"))
    done = quant("decide", run, "--limits", limits, "--json")
    assert done.code == 1
    assert json.loads(done.out)["winner"] is None


def test_what_a_world_prints_goes_to_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_project(tmp_path)
    world = tmp_path / "world.py"
    loud = 'import os\n\nprint("said in Python")\nos.system("echo said by a process of its own")\n'
    world.write_text(
        world.read_text().replace("from __future__ import annotations\n", f"from __future__ import annotations\n{loud}")
    )
    monkeypatch.chdir(tmp_path)
    assert quant("import", "--out", "run").code == 0
    done = spawn("dataset", "run", "--world", "world:Follow-v0", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["run"] == "run"
    assert done.err.count("said in Python") >= 1
    assert done.err.count("said by a process of its own") >= 1


@pytest.mark.parametrize("arguments", [("show", "missing", "--json"), ("compare", "a", "b", "--json")])
def test_an_error_is_said_in_words_on_stderr_and_by_the_exit_code(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = quant(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("quant: ")


def test_the_facts_of_an_import_say_how_each_is_known(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(quant("import", "--out", tmp_path / "run", "--json").out)
    assert document["facts"]
    assert all(fact.keys() == {"name", "value", "how", "source"} for fact in document["facts"])
