"""The command line as tests run it: by its entry point, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from quant.commands.main import main

LEAN = "-p no:hypothesispytest -p no:randomly"
"""For a pytest session inside a test: without the plugins that it does not need and that take a second to import."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def quant(*arguments: object) -> Outcome:
    """Runs the command in this process, by its entry point."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["quant", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
            main()
    finally:
        sys.argv = before
    return Outcome(int(caught.value.code or 0), out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """The words that start the command in a process of its own."""
    return [sys.executable, "-m", "quant", *map(str, arguments)]


def spawn(*arguments: object, **environment: str) -> Outcome:
    """Runs the command in a process of its own."""
    return _run(command(*arguments), environment)


def imported_by(*arguments: object, **environment: str) -> tuple[Outcome, set[str]]:
    """Runs the command in a process of its own; what it did, and the packages it has imported for that."""
    done = _run([sys.executable, "-c", _WITH_IMPORTS, *map(str, arguments)], environment)
    return done, set(done.err.split())


_WITH_IMPORTS = """
import sys
from quant.commands.main import main
sys.argv[0] = "quant"
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def _run(words: list[str], environment: Mapping[str, str]) -> Outcome:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | environment)
    return Outcome(done.returncode, done.stdout, done.stderr)
