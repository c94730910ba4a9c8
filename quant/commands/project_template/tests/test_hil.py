"""A board runs the candidates of the run as the host does, in time: `pytest -m hil --board esp32 --run runs/mine`."""

import pytest

pytest.importorskip("pytest_embedded", reason="a board is tested with the extra bench: pip install 'quant[bench]'")

from quant.testing.suites.hil import *  # noqa: F403
