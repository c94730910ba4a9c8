"""What each picture shows and what that means, in words and figures: for all readers, also those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.boards.report import DeviceReport, TrackReport
from quant.evaluation.statistics import Estimate
from quant.report.figures import STAGES, front_of
from quant.report.material import Curve

SMALL_STAGE = 0.005
"""Stages of a smaller share of a decision are not named."""


def joined(words: Sequence[str]) -> str:
    """In a row, with ``and`` before the last."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def estimates(what: str, rows: Sequence[tuple[str, Estimate]], form: str, better: str) -> str:
    """Estimates beside the float policy's, the first."""
    (name, reference), *others = rows
    values = ", ".join(f"{track.upper()} {format(one.value, form)}" for track, one in others)
    return (
        f"{what[:1].upper()}{what[1:]}; {better} is better. {values}; {name} {format(reference.value, form)} (dashed)."
    )


def differences(rows: Sequence[tuple[str, Estimate]]) -> str:
    """Paired differences of success, in percentage points: which are told apart from none."""
    worse = [t.upper() for t, one in rows if one.high is not None and one.high < 0]
    better = [t.upper() for t, one in rows if one.low is not None and one.low > 0]
    alike = [t.upper() for t, _ in rows if t.upper() not in (*worse, *better)]
    words = [f"{joined(worse)}: worse than float"] if worse else []
    words += [f"{joined(better)}: better than float"] if better else []
    words += [f"{joined(alike)}: not told apart from float"] if alike else []
    return f"On the very same episodes, so that luck cancels out: this is what counts. {'; '.join(words)}."


def pareto(points: Sequence[tuple[str, float, float]], across: str, up: str) -> str:
    """Who is not beaten in both figures."""
    front = set(front_of([(a, b) for _, a, b in points]))
    names = [name.upper() for name, a, b in points if (a, b) in front]
    return f"{up[:1].upper()}{up[1:]} against {across}. Not beaten in both: {joined(names)}."


def residual(track: str, reference: NDArray[Any], actions: NDArray[Any]) -> str:
    """The error of a continuous action, in its unit."""
    apart = actions.astype(np.float64) - reference
    return (
        f"{track.upper()} less float, all candidates on the same scale: mean size {np.abs(apart).mean():.2g}, largest "
        f"{np.abs(apart).max(initial=0.0):.2g}, leaning by {apart.mean():+.1g}."
    )


def by_peers(figures: Mapping[str, Sequence[float]], form: str, unit: str = "") -> str:
    """With how many peers each candidate is worst."""
    worst = []
    for track, values in figures.items():
        known = [(value, -count) for count, value in enumerate(values) if not math.isnan(value)]
        if known:
            value, count = max(known)
            worst.append(f"{track.upper()} {format(value, form)}{unit} with {peers(-count)}")
    return f"Largest: {'; '.join(worst)}." if worst else "No frames."


def peers(count: int) -> str:
    """So many peers."""
    return "1 peer" if count == 1 else f"{count} peers"


def training(curve: Curve) -> str:
    """Where the kept step lies."""
    step, _, error = min(curve, key=lambda point: point[2])
    first = curve[0][2]
    return f"Solid: error {first:.3g} before the first step, lowest at step {step} with {error:.3g}. Dashed: the loss."


def board_times(device: DeviceReport) -> str:
    """The longest decisions on a board."""
    most = {track: max(own.times, key=lambda row: row.total.p99) for track, own in device.tracks.items()}
    words = [f"{t.upper()} {row.total.p99:,.4g} µs with {peers(row.peers)}" for t, row in most.items()]
    return f"99th percentile, and a stroke up to the maximum. Longest: {'; '.join(words)} ({device.board.evidence})."


def board_stages(own: TrackReport, evidence: str) -> str:
    """What the time of a decision with the most peers goes to."""
    row = own.times[-1]
    times = {stage: row.stages[stage].median for stage in STAGES}
    total = sum(times.values())
    shares = [f"{stage} {time / total:.0%}" for stage, time in times.items() if total and time / total >= SMALL_STAGE]
    return f"Median of each stage, stacked ({evidence}). With {peers(row.peers)}: {', '.join(shares)}."
