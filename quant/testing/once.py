"""What takes long is made once a session, whichever of its processes asks for it first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quant.testing.closing import is_worker


def made_once(
    config: pytest.Config, factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """The folder that ``make`` filled, for every worker of pytest-xdist, which may read it and nothing else.

    The lock is the one that pytest-xdist's documentation has for this. What could not be made is tried again by the
    next worker that asks, and so fails there in the same words.
    """
    if not is_worker(config):
        folder = factory.mktemp(name) / name
        make(folder)
        return folder
    from filelock import FileLock

    shared = factory.getbasetemp().parent / name
    done = shared / "done"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not done.exists():
            attempt = factory.mktemp(name) / name
            make(attempt)
            attempt.rename(shared / name)
            done.touch()
    return shared / name
