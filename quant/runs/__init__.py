"""Runs: one folder with every artifact of one comparison, its steps, and what is done with a finished one."""
