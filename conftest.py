"""Switches on the package's pytest plugin: options, fixtures and the terminal summary of the acceptance suite."""

pytest_plugins = ["quant.pytest_plugin"]
