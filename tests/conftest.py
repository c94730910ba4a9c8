"""How the tests share the cores.

``make test`` has workers of pytest-xdist with ``--dist loadfile``: the tests of a file stay together, so that what its
fixtures make is made once, and the next file goes to the worker that is free.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from quant.testing.closing import is_worker

HERE = Path(__file__).parent
LONGEST = (
    "test_tutorial.py",
    "hil",
    "acceptance",
    "boards/test_pytest_hil.py",
    "tracks/test_search.py",
    "test_cli.py",
    "report/test_figures.py",
    "test_reference.py",
    "test_api_reference.py",
    "report/test_page.py",
    "test_board_cli.py",
    "test_damage.py",
    "test_init.py",
)
"""What takes long, the longest first: begun last, it would keep the others waiting."""

# How fast a machine is, and what else it does, decides no test.
settings.register_profile("quant", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quant")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """One thread of BLAS for each worker: the cores are shared already, and threads that wait for one another spin."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="session", autouse=True)
def one_process_each(pytestconfig: pytest.Config) -> Iterator[None]:
    """In a worker: what would start a process for each core stays in its own; the bytes are the same by promise."""
    with pytest.MonkeyPatch.context() as patch:
        if is_worker(pytestconfig):
            patch.setattr("quant.evaluation.parallel.available_cpus", lambda: 1)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: what takes longest comes first, whatever the order is otherwise."""

    def place(item: pytest.Item) -> int:
        longest = (place for place, name in enumerate(LONGEST) if item.path.is_relative_to(HERE / name))
        return next(longest, len(LONGEST))

    if is_worker(config):
        items.sort(key=place)
