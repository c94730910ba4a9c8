"""The hardware-in-the-loop tests, all of them: ``from quant.suites.hil import *`` makes a module of tests of them.

Needs the extra ``bench``.
"""

from quant.suites.hil.bit_exactness import *  # noqa: F403
from quant.suites.hil.boot import *  # noqa: F403
from quant.suites.hil.closed_loop import *  # noqa: F403
from quant.suites.hil.decisions import *  # noqa: F403
from quant.suites.hil.fixtures import *  # noqa: F403
from quant.suites.hil.identity import *  # noqa: F403
from quant.suites.hil.instructions import *  # noqa: F403
from quant.suites.hil.latency import *  # noqa: F403
from quant.suites.hil.line import *  # noqa: F403
from quant.suites.hil.link_faults import *  # noqa: F403
from quant.suites.hil.memory import *  # noqa: F403
from quant.suites.hil.soak import *  # noqa: F403
from quant.suites.hil.verdict import *  # noqa: F403
from quant.suites.hil.wire_faults import *  # noqa: F403
