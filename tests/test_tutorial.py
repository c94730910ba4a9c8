"""The tutorial, run as it is written: every command in its order, in a fresh folder, held against what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
FILES = ROOT / "examples" / "tutorial"
MISSING = [name for name in ("torch", "stable_baselines3") if find_spec(name) is None]
REQUIRED = os.environ.get("QUANT_REQUIRE_TRAIN") == "1"
"""Where this is set, as in CI, PyTorch has to be there."""
NUMBER = r"<?[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?"
ANY = "..."


@dataclass(frozen=True)
class Step:
    """A command of the page, the exit codes it says, and the lines it shows."""

    command: str
    codes: tuple[int, ...]
    shown: tuple[str, ...]


def steps(page: str) -> Iterator[Step]:
    """Commands stand in indented blocks behind ``$``; what they print follows."""
    command, shown = "", list[str]()
    for line in page.splitlines():
        if line.startswith("    $ "):
            if command:
                yield _step(command, shown)
            command, shown = line[6:], []
        elif line.startswith("    "):
            shown.append(line[4:])
        elif line and command:
            yield _step(command, shown)
            command, shown = "", []
    if command:
        yield _step(command, shown)


def _step(line: str, shown: list[str]) -> Step:
    command, _, remark = line.partition("#")
    codes = tuple(map(int, re.findall(r"\d", remark))) or (0,)
    return Step(command.strip(), codes, tuple(text.strip() for text in shown if text.strip()))


def pattern(shown: tuple[str, ...]) -> str:
    """Any number stands for any other, any space for any; a line of dots for lines, dots at an end for its rest."""
    lines = []
    for text in shown:
        if text == ANY:
            lines.append(r"(?:.*\n)*?")
            continue
        words = re.sub(r"\s+", " ", text.removesuffix(ANY)).strip()
        literal = r"\s+".join(_word(word) for word in words.split(" "))
        rest = ".*" if text.endswith(ANY) else r"\s*?"
        lines.append(rf"\s*{literal}{rest}\n")
    return "".join(lines)


def _word(word: str) -> str:
    return "".join(NUMBER if re.fullmatch(NUMBER, part) else re.escape(part) for part in re.split(f"({NUMBER})", word))


STEPS = tuple(steps(PAGE.read_text("utf-8")))


def test_the_page_has_the_whole_way() -> None:
    called = [step.command.split()[:2] for step in STEPS]
    for command in ("doctor", "init", "run", "explain", "report", "accept", "compare"):
        assert ["quant", command] in called
    assert sum(command[0] == "python" for command in called) == 2


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        (("success 79.83% -1e-5",), " success   80.1%  2\n", True),
        (("success 79.83%",), "collision 80.1%\n", False),
        (("Head", ANY, "run: runs/first"), "Head\nx\ny\nrun: runs/first\n", True),
        (("Head", ANY, "run: runs/first"), "Head\nx\ny\n", False),
        (("Deploy ...",), "Deploy QAT\n", True),
        (("drop 1% to 2%: loses",), "drop 1% to 2%: PASSES\n", False),
    ],
)
def test_what_fits_what_is_shown(shown: tuple[str, ...], printed: str, fits: bool) -> None:
    assert (re.search(pattern(shown), printed) is not None) == fits


@pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"training needs {' and '.join(MISSING)} (extra train)")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    for file in FILES.glob("*.py"):
        shutil.copy(file, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for step in STEPS:
        done = subprocess.run(
            step.command,
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )
        told = f"$ {step.command}\n{done.stdout}\n{done.stderr}"
        assert done.returncode in step.codes, told
        assert re.search(pattern(step.shown), done.stdout), f"shown: {step.shown}\n{told}"
