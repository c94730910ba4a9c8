"""`quant init`: the project it writes runs as it is, with the installed package and nothing of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.limits import OPTIONAL, Limits, load_limits
from quant.boards.board_map import load_board_map
from quant.commands.project import PYPROJECT, limits_table, project_files, start_project
from quant.errors import InputError
from quant.evaluation.actors import three_bit
from quant.observation import Observations
from quant.observation.resolve import Sizes, resolve
from quant.observation.storage import read_given
from quant.policy import Policy, load_policy
from quant.worlds.reference import reference_policy_path
from quant.worlds.rollout import Act, rollout
from quant.worlds.rules import neutral
from quant.worlds.world import load_world
from tests.commandline import quant

WORLD = "world:Follow-v0"
SHORT = ("--world", WORLD, "--world-kwargs", '{"seconds": 8}', "--episodes", "60", "--lossy-episodes", "0")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new project, where the user is."""
    start_project(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    yield tmp_path / "mine"
    sys.modules.pop("world", None)
    sys.path[:] = [path for path in sys.path if path != str(tmp_path / "mine")]


def command(*words: object) -> str:
    """Runs a Python module in a process of its own, in the folder the test is in; its whole output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "QUANT_"))}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=clean,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_whole_way_in_a_new_project(project: Path) -> None:
    command("quant", "run", *SHORT, "--observation", "observation.toml", "--tracks", "ptq", "--out", "runs/mine")
    command("quant", "accept", "runs/mine")
    tests = ("-m", "not slow", "-k", "acceptance or regression or memory")
    said = command("pytest", "--run", "runs/mine", "--board", "virtual", "--junitxml", "tests.xml", *tests)
    assert "Deploy PTQ" in said and "no regression" in said.lower() and "simulated" in said
    figures = (project / "tests.xml").read_text()
    for test in (
        "test_the_peer_encoder_fits[ptq]",
        "test_the_candidate_is_no_worse_than_it_was[ptq]",
        "tests.test_hil",
    ):
        assert test in figures
    # Nothing is left that git would see but what the project keeps.
    assert {path.name for path in project.iterdir()} - {"runs", "baseline.json", "tests.xml", "__pycache__"} <= {
        Path(name).parts[0] for name in project_files()
    } | {".pytest_cache", ".hypothesis"}


def test_an_assertion_of_the_suites_shows_its_values_there(project: Path) -> None:
    (project / "tests" / "test_own.py").write_text(
        "def test_the_plugin_rewrites_the_assertions_of_the_suites():\n"
        "    import quant.testing.suites.acceptance as suite\n"
        "    assert '@pytest_ar' in vars(suite)\n"
    )
    command("pytest", "tests/test_own.py")


def act_of(policy: Policy) -> Act:
    return lambda observations: policy.action_space.decide(policy.forward(observations).values)


@pytest.mark.usefixtures("project")
def test_its_world_is_one_that_tells_good_driving_from_bad() -> None:
    world = load_world(WORLD)
    scenarios = world.draw("test", 0, {"nominal": 60})
    policy = load_policy(reference_policy_path())
    good, never, rounded = (
        rollout(world, scenarios, act).success.mean() for act in (act_of(policy), neutral, act_of(three_bit(policy)))
    )
    assert good >= 0.95
    assert never < 0.7 and rounded < 0.9


@pytest.mark.usefixtures("project")
def test_its_world_counts_what_is_braked_for_nothing() -> None:
    world = load_world(WORLD)
    scenarios = world.draw("test", 0, {"nominal": 20})
    episodes = rollout(world, scenarios, lambda seen: neutral(seen) + 1)
    assert not episodes.success.all() and not episodes.collision.all()


@pytest.mark.usefixtures("project")
def test_its_observation_is_what_its_world_gives() -> None:
    policy = load_policy(reference_policy_path())
    given = read_given(Path("observation.toml"), policy.ego_size, policy.peer_size)
    contract = resolve(Sizes(policy.ego_size, policy.peer_size, policy.max_peers), None, [], given)
    assert contract.undeclared == ()
    assert {column.origin("low") for column in (*contract.ego, *contract.peers)} == {"file"}
    assert contract.functions.keys() == {3}
    # Whoever drives, in one scenario after another, nothing lies beyond.
    world = load_world(WORLD)
    scenarios = world.draw("test", 1, {"nominal": 40})
    seen: list[Observations] = []

    def watched(act: Act) -> Act:
        def looked(observations: Observations) -> Any:
            seen.append(observations)
            return act(observations)

        return looked

    for act in (act_of(policy), neutral, lambda frames: neutral(frames) + 1, lambda frames: neutral(frames) + 3):
        rollout(world, scenarios, watched(act))
    for values, peers in (
        (np.concatenate([one.ego for one in seen]), False),
        (np.concatenate([one.peers[one.mask] for one in seen]), True),
    ):
        low, high = contract.bounds(peers=peers)
        assert ((values >= low) & (values <= high)).all()


def test_its_observation_is_refused_where_it_is_of_another_policy(project: Path) -> None:
    with pytest.raises(InputError, match=r"describes 4 columns of ego") as refused:
        read_given(project / "observation.toml", 6, 6)
    assert "quant observation POLICY" in str(refused.value)


def test_its_limits_are_the_declared_ones_each_with_its_meaning(project: Path) -> None:
    assert load_limits(folder=project) == Limits()
    text = limits_table()
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    (project / PYPROJECT).write_text(uncommented)
    table = tomllib.loads(uncommented)["tool"]["quant"]["acceptance"]
    assert list(table) == [field.name for field in fields(Limits) if field.name not in OPTIONAL]
    assert load_limits(folder=project) == Limits()
    # Each has a sentence above it.
    lines = text.splitlines()
    for field in fields(Limits):
        (place,) = (
            number for number, line in enumerate(lines) if line.startswith((f"# {field.name} = ", f"# {field.name} is"))
        )
        assert lines[place - 1].startswith("# ") and lines[place - 1].endswith(".")


def test_its_board_map_is_one_and_so_is_its_example(project: Path) -> None:
    path = project / "boards.yaml"
    assert load_board_map(path).boards == {}
    path.write_text(path.read_text().replace("boards: {}", "boards:").replace("\n#  ", "\n  "))
    assert load_board_map(path).boards["truck1"].chip == "esp32"


def test_what_is_there_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "world.py").write_text("mine = 1\n")
    (tmp_path / "README.md").symlink_to(tmp_path / "nowhere")
    done = quant("init", tmp_path)
    assert done.code == 2
    assert "world.py" in done.err and "README.md" in done.err and "boards.yaml" not in done.err and "--keep" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "world.py"]


def test_with_keep_only_what_is_missing_is_written(tmp_path: Path) -> None:
    (tmp_path / "world.py").write_text("mine = 1\n")
    done = quant("init", tmp_path, "--keep")
    assert done.code == 0 and "world.py: is there, left as it is" in done.out
    assert (tmp_path / "world.py").read_text() == "mine = 1\n"
    for name, text in project_files().items():
        if name != "world.py":
            assert (tmp_path / name).read_text() == text
    # Once more there is nothing left to write.
    assert quant("init", tmp_path, "--keep").code == 0


def test_a_file_is_no_folder_for_a_project(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = quant("init", tmp_path / "file")
    assert done.code == 2 and "is a file" in done.err


def test_where_a_folder_is_needed_and_a_file_is_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "tests").touch()
    for arguments in (("init", tmp_path), ("init", tmp_path, "--keep")):
        done = quant(*arguments)
        assert done.code == 2 and f"{tmp_path / 'tests'}: is no folder" in done.err
        assert [path.name for path in tmp_path.iterdir()] == ["tests"]


def test_the_commands_it_names_are_commands(project: Path) -> None:
    done = quant("init", project.parent / "other")
    named = {line.split()[1] for line in done.out.splitlines() if line.startswith("quant ")}
    assert named == {"doctor", "run"}
    assert f"cd {project.parent / 'other'}" in done.out
