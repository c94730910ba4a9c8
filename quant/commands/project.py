"""A project of one's own: limits, a world and what is seen in it, a board map and tests, ready to run and to change."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from quant.acceptance.limits import TABLE, Limits
from quant.errors import InputError
from quant.files import write_text

PYPROJECT = "pyproject.toml"
TEMPLATES = {
    "README.md": "README.md",
    "world.py": "world.py",
    "observation.toml": "observation.toml",
    "boards.yaml": "boards.yaml",
    "conftest.py": "conftest.py",
    "pytest.ini": "pytest.ini",
    "tests/test_acceptance.py": "tests/test_acceptance.py",
    "tests/test_regression.py": "tests/test_regression.py",
    "tests/test_hil.py": "tests/test_hil.py",
    ".gitignore": "gitignore",
    ".github/workflows/quant.yml": "workflow.yml",
}
"""Where each file of ``project_template`` goes; it holds no dot files, which tools would take for this package's."""

_WIDTH = 100


@dataclass(frozen=True)
class Made:
    """What was done, as names from the project's folder.

    Attributes:
        written: new files.
        kept: files that were there and are as they were.
    """

    written: tuple[str, ...]
    kept: tuple[str, ...]


def start_project(folder: Path, *, keep: bool = False) -> Made:
    """Writes the files of a new project.

    Args:
        folder: made where it is not there.
        keep: files that are there stay as they are, and the others are written.

    Raises:
        InputError: a file is there already and ``keep`` was not given, and then nothing is written; or it cannot be
            written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", where=folder, expected="a folder for the project")
    texts = project_files()
    for parent in sorted({parent for name in texts for parent in (folder / name).parents if folder in parent.parents}):
        if (parent.exists() or parent.is_symlink()) and not parent.is_dir():
            raise InputError("is no folder", where=parent, expected="a folder for files of the project")
    present = tuple(name for name in texts if (folder / name).exists() or (folder / name).is_symlink())
    if present and not keep:
        raise InputError(
            f"has {', '.join(present)} already",
            where=folder,
            expected="a new or empty folder: nothing is ever overwritten",
            hint="quant init --keep writes only the files that are not there yet",
        )
    for name, text in texts.items():
        if name not in present:
            write_text(folder / name, text)
    return Made(tuple(name for name in texts if name not in present), present)


def project_files() -> Mapping[str, str]:
    """The text of each file by its name from the project's folder."""
    template = files("quant") / "commands" / "project_template"
    return {PYPROJECT: limits_table()} | {
        name: (template / source).read_text(encoding="utf-8") for name, source in TEMPLATES.items()
    }


def limits_table() -> str:
    """``[tool.quant.acceptance]`` with every limit as a comment: what it means, and its default."""
    meanings = _meanings()
    lines = [
        "# The limits a candidate has to keep. Each stands here with its default; take the # away to set another.",
        f"[{'.'.join(TABLE)}]",
    ]
    for field in fields(Limits):
        default = f"= {json.dumps(field.default)}" if field.default is not None else "is not set"
        lines += ["", *_comment(meanings[field.name]), f"# {field.name} {default}"]
    return "\n".join(lines) + "\n"


def _comment(words: str) -> Iterable[str]:
    plain = words.replace("``", "")
    return textwrap.wrap(plain[0].upper() + plain[1:], _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _meanings() -> dict[str, str]:
    """What each limit means, off the attributes of its declaration's docstring."""
    _, _, attributes = (inspect.getdoc(Limits) or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", words) for name, words in found}
