"""Throughput and error figures, each printed by ``python -m benchmarks.NAME``."""
