"""The hardware-in-the-loop tests: ``from quant.testing.suites.hil import *`` makes a module of tests of all of them.

Needs the extra ``bench``.
"""

from quant.testing.suites.hil.bit_exactness import *  # noqa: F403
from quant.testing.suites.hil.boot import *  # noqa: F403
from quant.testing.suites.hil.closed_loop import *  # noqa: F403
from quant.testing.suites.hil.decisions import *  # noqa: F403
from quant.testing.suites.hil.fixtures import *  # noqa: F403
from quant.testing.suites.hil.identity import *  # noqa: F403
from quant.testing.suites.hil.instructions import *  # noqa: F403
from quant.testing.suites.hil.latency import *  # noqa: F403
from quant.testing.suites.hil.line import *  # noqa: F403
from quant.testing.suites.hil.link_faults import *  # noqa: F403
from quant.testing.suites.hil.memory import *  # noqa: F403
from quant.testing.suites.hil.soak import *  # noqa: F403
from quant.testing.suites.hil.stress import *  # noqa: F403
from quant.testing.suites.hil.verdict import *  # noqa: F403
from quant.testing.suites.hil.wire_faults import *  # noqa: F403
