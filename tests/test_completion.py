"""Shell completion: the words that are offered, in click's own machinery and in a real bash, and how soon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from quant.boards.board_map import RESERVED
from quant.commands.completion import INSTALL
from quant.commands.main import cli
from quant.tracks.registry import TRACKS
from tests.commandline import imported_by, quant

SETTINGS = {"checkpoint": "x", "drives": [], "tracks": ["ptq", "ptq-gptq"], "schema_version": 1}
HEAVY = {"tensorflow", "scipy", "gymnasium", "rich", "jinja2", "h5py"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs, other folders and a board map, and nothing plugged in."""
    for run in ("runs/mine", "runs/other", "alone"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / ".hidden" / "run").mkdir(parents=True)
    (tmp_path / ".hidden" / "run" / "settings.json").write_text("{}")
    (tmp_path / "boards.yaml").write_text("boards: {truck: {chip: esp32, port: /dev/by-id/truck}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANT_BOARD_MAP", raising=False)
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    return tmp_path


def offered(*arguments: str) -> list[str]:
    """What is offered for the last of these words."""
    *before, incomplete = arguments
    return [
        item.value for item in ShellComplete(cli, {}, "quant", "_QUANT_COMPLETE").get_completions(before, incomplete)
    ]


def boards(begun: str, *mapped: str) -> list[str]:
    """The boards whose names begin so: those that need no map, then the map's."""
    return [name for name in (*RESERVED, *mapped) if name.startswith(begun)]


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("expl",), ["explain"]),
        (("explain", "--wor"), ["--worst"]),
        (("show", ""), ["alone", "runs/mine", "runs/other"]),
        (("show", "ru"), ["runs/mine", "runs/other"]),
        (("show", "runs/m"), ["runs/mine"]),
        (("show", "./a"), ["./alone"]),
        (("show", "runs/../al"), ["runs/../alone"]),
        (("compare", "alone", "runs/"), ["runs/mine", "runs/other"]),
        (("run", "--tracks", ""), list(TRACKS)),
        (("run", "--tracks", "ptq,q"), ["ptq,qat"]),
        (("run", "--tracks", "qat,ptq-g"), [f"qat,{name}" for name in TRACKS if name.startswith("ptq-g")]),
        (("run", "--tracks", "ptq,ptq"), [f"ptq,{name}" for name in TRACKS if name.startswith("ptq-")]),
        (("explain", "runs/mine", "--track", ""), ["ptq", "ptq-gptq"]),
        (("explain", "missing", "--track", "p"), []),
        (("board", "info", "--board", "t"), boards("t", "truck")),
        (("board", "info", "--board", "esp32s"), ["esp32s3"]),
        (("board", "info", "--port", ""), ["/dev/by-id/truck"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_what_is_offered(typed: tuple[str, ...], words: list[str]) -> None:
    assert offered(*typed) == words


def test_a_broken_board_map_costs_its_own_names_alone(desk: Path) -> None:
    (desk / "boards.yaml").write_text("boards: {truck: {chip: toaster}}\n")
    assert offered("board", "info", "--board", "v") == boards("v")
    assert offered("board", "info", "--port", "") == []


def test_another_board_map_is_taken_where_it_was_named(desk: Path) -> None:
    (desk / "bench.yaml").write_text("boards: {lorry: {}}\n")
    assert offered("board", "info", "--board-map", "bench.yaml", "--board", "l") == boards("l", "lorry")


@pytest.mark.parametrize("shell", INSTALL)
def test_the_script_says_how_it_is_installed(shell: str) -> None:
    done = quant("completion", shell)
    assert done.code == 0
    assert done.out.startswith(f"# To install: {INSTALL[shell]}\n")
    assert "_QUANT_COMPLETE" in done.out


@pytest.fixture
def in_bash(desk: Path) -> Callable[[str], list[str]]:
    """Completes a line as bash does: with the function that the script registers."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        script = (
            f'eval "$(quant completion bash)"; COMP_WORDS=({" ".join(repr(word) for word in words)}); '
            f"COMP_CWORD={len(words) - 1}; "
            '$(complete -p quant | sed "s/.*-F \\([^ ]*\\).*/\\1/") quant; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [bash, "--norc", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=desk,
            env=os.environ | {"PATH": path},
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


def test_a_real_bash_completes_commands_runs_and_tracks(in_bash: Callable[[str], list[str]]) -> None:
    assert in_bash("quant exp") == ["explain"]
    assert in_bash("quant show runs/") == ["runs/mine", "runs/other"]
    assert in_bash("quant run --tracks ptq,q") == ["ptq,qat"]


@pytest.mark.parametrize("words", ["quant sh", "quant show r", "quant board info --board t"])
def test_nothing_heavy_is_imported_for_a_word(desk: Path, words: str) -> None:
    typed = {"_QUANT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done, imported = imported_by(**typed)
    assert done.code == 0, done.err
    assert done.out and not HEAVY & imported
