"""The pytest plugins, and the suites of a run, a baseline and a board."""
