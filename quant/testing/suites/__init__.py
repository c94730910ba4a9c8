"""The tests of a run as modules: acceptance criteria, baseline, board. A project of one's own imports what it wants.

    # tests/test_acceptance.py
    from quant.testing.suites.acceptance import *

and ``pytest --run runs/mine`` holds the run to every criterion. The fixtures come from the plugins
`quant.testing.plugin` and `quant.testing.hil_plugin`, which the project's ``conftest.py`` switches on. `quant init`
writes all of it. The package's own ``tests/acceptance`` and ``tests/hil`` are these very modules.
"""
