"""Which tests a worker of pytest-xdist gets together; imported where pytest-xdist is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """``--dist loadfile``, but for the files of a run's suites, which go to one worker: a board has one owner.

    Not ``xdist_group``: pytest-xdist 3.8 puts the group behind the node id, pytest 9.2 does not let it, and each test
    goes anywhere without a word.
    """

    def __init__(self, config: pytest.Config, log: Producer, together: Sequence[Path]) -> None:
        super().__init__(config, log)
        self._together = tuple(together)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        path = self.config.rootpath / file
        return "" if any(path.is_relative_to(place) for place in self._together) else file
