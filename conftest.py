"""Switches on the package's pytest plugins: the acceptance suite, and the hardware-in-the-loop suite."""

import signal

pytest_plugins = ["quant.testing.plugin", "quant.testing.hil_plugin"]

# A job that a shell started in the background ignores Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
