"""How long a test waits for what takes less than a second on an idle machine: so long that load decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds. Who reaches them hangs."""


def happens(condition: Callable[[], object], every: float = 0.02) -> bool:
    """Whether it does, sooner or later."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every)
    return True
