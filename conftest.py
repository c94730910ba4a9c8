"""Switches on the package's pytest plugins: the acceptance suite, and the hardware-in-the-loop suite."""

pytest_plugins = ["quant.pytest_plugin", "quant.pytest_hil"]
