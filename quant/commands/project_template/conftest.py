"""Switches on what the tests of a run need: the run, its limits, its board."""

pytest_plugins = ["quant.testing.plugin", "quant.testing.hil_plugin"]
