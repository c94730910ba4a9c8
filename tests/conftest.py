"""How the tests share the cores: which stay together, and which begin first.

``make test`` has two workers of pytest-xdist with ``--dist loadgroup``. A file's tests stay together, so that what its
fixtures make is made once, unless a test names another group; every group goes to the next worker that is free.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from quant.testing.closing import is_worker
from quant.testing.plugin import GROUP

HERE = Path(__file__).parent
LONGEST = (
    "test_tutorial.py",
    GROUP,
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
"""Groups that take long, the longest first: one that begins last keeps one core waiting for the other."""

# How fast a machine is, and what else it does, decides no test.
settings.register_profile("quant", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quant")


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else item.path.relative_to(HERE).as_posix()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: every test has a group, and the longest groups come first, whatever the order is otherwise."""
    if not is_worker(config):
        return
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(_group(item), len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """In a worker: a test is called what the command line calls it, without the group that pytest-xdist put behind."""
    if is_worker(session.config):
        for item in session.items:
            if item.parent is not None:
                item._nodeid = f"{item.parent.nodeid}::{item.name}"  # type: ignore[attr-defined]
