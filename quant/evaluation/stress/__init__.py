"""Stress: the worst that can be found between the float policy and a candidate where the policy's inputs may lie.

`frames` makes them, `measure` holds the candidates against the float policy on them, `settled` tells where the float
policy itself is too steep for any int8, `search` goes on from the worst, and `stress` is all of it. `results` is what
comes of it, and its file.
"""
