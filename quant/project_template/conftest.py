"""Switches on what the tests of a run need: the run, its limits, its board."""

pytest_plugins = ["quant.pytest_plugin", "quant.pytest_hil"]
