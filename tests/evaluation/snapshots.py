"""Hand-made snapshots: a winner whose figures can be damaged one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from quant.acceptance.baseline import Figure, Snapshot
from quant.evaluation.statistics import Bits

N = 2000
CONDITIONS = {
    "driving": {"world": "convoy", "seed of the scenarios": "0", "scenarios": "c" * 64},
    "agreement on recorded": {"tolerance of the agreement": "0.02", "held-out frames": "f" * 64},
    "error on recorded": {"held-out frames": "f" * 64, "policy": "a" * 64},
    "measured esp32": {"chip": "esp32", "engine": "esp-tflite-micro 1.4.0"},
    "models": {},
}


def outcomes(failures: int, shift: int = 0) -> Bits:
    """N episodes, of which those from ``shift`` on fail."""
    success = np.ones(N, np.bool_)
    success[shift : shift + failures] = False
    return success


def figure(kind: str, of: str, value: float, group: str, **more: Any) -> Figure:
    return Figure(kind, of, value, "measured" if group == "measured esp32" else "computed", group, **more)


def sampled(kind: str, bits: Bits, of: str = "nominal") -> Figure:
    return figure(kind, of, float(bits.mean()), "driving", n=len(bits), bits=bits)


def figures(failures: int = 40) -> tuple[Figure, ...]:
    return (
        sampled("success", outcomes(failures)),
        sampled("collision", ~outcomes(20)),
        figure("needless", "nominal", 0.15, "driving", n=N, interval=(0.14, 0.16)),
        figure("agreement", "recorded", 0.99, "agreement on recorded", n=5000),
        figure("mae", "recorded", 0.002, "error on recorded", n=5000),
        figure("peer_encoder_bytes", "", 4576, "models"),
        figure("latency_p99", "measured esp32", 2.0, "measured esp32"),
        figure("heap_free", "measured esp32", 150_000, "measured esp32"),
    )


def snapshot(**changes: Any) -> Snapshot:
    made = Snapshot(
        "before",
        "ptq",
        "provisional",
        "ego 6, 8 peers of 6, Box(0..1)",
        {"policy": "a" * 64, "dataset": "b" * 64, "scenarios": "c" * 64},
        {"numpy": "2.4.6", "tensorflow": "2.21.0"},
        CONDITIONS,
        {},
        {"float": figures()[:3], "ptq": figures()},
    )
    return replace(made, **changes)


def with_figure(made: Snapshot, new: Figure, track: str = "ptq") -> Snapshot:
    """In place of the one of that name."""
    own = tuple(new if one.name == new.name else one for one in made.subjects[track])
    return replace(made, name="now", subjects={**made.subjects, track: own})


def without(made: Snapshot, name: str, track: str = "ptq") -> Snapshot:
    own = tuple(one for one in made.subjects[track] if one.name != name)
    return replace(made, name="now", subjects={**made.subjects, track: own})


def under(made: Snapshot, group: str, **conditions: str) -> Snapshot:
    """With other conditions of a group."""
    return replace(made, conditions={**made.conditions, group: {**made.conditions[group], **conditions}})
