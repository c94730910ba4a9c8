"""A drive as the field's vehicles record it, made here: three cars on a winding road, positions once a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.observation.resolve import Bounds
from quant.policy import Policy
from tests.tracks import strategies

Arrays = dict[str, NDArray[Any]]
FRAMES, SLOTS, PERIOD_MS = 1500, 8, 100
SEES_TO = 90.0
BOUNDS = {
    5: ((0.0, -1.0, -1.0, 0.0, -1.0), (1.0, 1.0, 1.0, 1.0, 0.0)),
    6: ((0.0, -1.0, 0.0, -1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0, 1.0, 1.0)),
}


def policy(ego: int = 6, frames: int = 1, *, stated: bool = True) -> Policy:
    """A policy with random weights for such drives; it states the bounds of its ego like real checkpoints do."""
    made = strategies.policy(3, ego=ego * frames)
    if not stated:
        return made
    low, high = BOUNDS[ego]
    free = (float("inf"),) * 6
    bounds = Bounds(low * frames, high * frames, tuple(-one for one in free), free)
    return Policy(made.encoder, made.head, made.pooling, made.action_space, made.max_peers, bounds=bounds)


def drive(ego: int = 6, seed: int = 0, frames: int = FRAMES) -> Arrays:
    """``t_ms``, ``ego``, ``peers`` and ``peer_mask``, normalized as the field does.

    Heading is a compass'; speed, heading and position come once a second, acceleration with every frame; a message of
    a peer gets lost now and then, and its age rises until the next.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(frames) * PERIOD_MS + rng.integers(0, 2, frames)
    seconds = np.arange(frames) / 10
    cars = [_car(rng, seconds, start) for start in (0.0, 14.0, 31.0)]
    own, others = cars[0], cars[1:]
    peers = np.zeros((frames, SLOTS, 6))
    mask = np.zeros((frames, SLOTS))
    for slot, car in enumerate(others):
        for row, values in _seen(rng, own, car, t):
            peers[row, slot], mask[row, slot] = values, 1
    _close_ranks(peers, mask)
    return {
        "t_ms": t,
        "ego": _ego(own, peers, mask, ego).astype(np.float32),
        "peers": peers.astype(np.float32),
        "peer_mask": mask.astype(np.float32),
    }


def stacked(arrays: Arrays, *, newest_first: bool = False, frames: int = 3) -> Arrays:
    """The same with a stack of the last frames as ego."""
    ego = arrays["ego"]
    parts = [np.concatenate([np.repeat(ego[:1], lag, axis=0), ego[: len(ego) - lag]]) for lag in range(frames)]
    return {**arrays, "ego": np.concatenate(parts if newest_first else parts[::-1], axis=1)}


def write(path: Path, arrays: Arrays) -> Path:
    """The ``.npz``."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def _car(rng: np.random.Generator, seconds: NDArray[Any], start: float) -> dict[str, NDArray[Any]]:
    """Speed, heading, place and acceleration of one car; all but the last once a second."""
    lag = start / 10.0
    when = seconds + lag
    speed = np.clip(9.0 + 7.0 * np.sin(when / 11.0) + 4.0 * np.sin(when / 4.7), 0.0, None)
    speed = np.where(speed < 1.0, 0.0, speed)
    heading = 1.2 * np.sin(when / 23.0) + 0.4 * np.sin(when / 9.0)
    step = speed / 10
    x, y = start + np.cumsum(step * np.cos(heading)), np.cumsum(step * np.sin(heading))
    acceleration = np.gradient(speed, 0.1) * 0.5 + rng.normal(0, 0.4, len(seconds))
    held = np.arange(len(seconds)) // 10 * 10 + int(rng.integers(10))
    held = np.clip(held - 10 * (held > np.arange(len(seconds))), 0, None)
    return {
        "speed": np.round(speed, 2)[held],
        "heading": np.round(heading, 4)[held],
        "x": x[held],
        "y": y[held],
        "acceleration": np.round(acceleration, 2),
    }


def _seen(
    rng: np.random.Generator, own: dict[str, NDArray[Any]], car: dict[str, NDArray[Any]], t: NDArray[Any]
) -> list[tuple[int, list[float]]]:
    """Rows in which a car is seen, and its features there."""
    found, heard, row_heard = [], -1000, -1
    for row, now in enumerate(t):
        if rng.random() < 0.75:
            heard, row_heard = int(now) - int(rng.integers(40, 70)), row
        if row_heard < 0 or now - heard > 500:
            continue
        angle = own["heading"][row]
        dx, dy = car["x"][row_heard] - own["x"][row], car["y"][row_heard] - own["y"][row]
        # Clockwise headings with the left as positive: x forward along (cos, sin), right along (-sin, cos).
        ahead, right = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
        if not (ahead > 0 and abs(right) < ahead < SEES_TO):
            continue
        relative = [car[name][row_heard] - own[name][row] for name in ("speed", "heading")]
        acceleration = car["acceleration"][row_heard]
        found.append(
            (
                row,
                [
                    round(ahead, 3) / 100,
                    round(-right, 3) / 100,
                    relative[0] / 30,
                    relative[1] / np.pi,
                    acceleration / 10,
                    (int(now) - heard) / 500,
                ],
            )
        )
    return found


def _close_ranks(peers: NDArray[Any], mask: NDArray[Any]) -> None:
    """Peers present stand in the first slots."""
    order = np.argsort(mask == 0, axis=1, kind="stable")
    peers[:] = np.take_along_axis(peers, order[:, :, None], axis=1)
    mask[:] = np.take_along_axis(mask, order, axis=1)


def _ego(own: dict[str, NDArray[Any]], peers: NDArray[Any], mask: NDArray[Any], size: int) -> NDArray[Any]:
    there = mask > 0
    number = mask.sum(axis=1) / SLOTS
    lowest = np.where(there, peers[:, :, 4], 0.0).min(axis=1, initial=0.0)
    closing = np.where(there, -peers[:, :, 2], 0.0).max(axis=1, initial=0.0)
    speed, acceleration = own["speed"] / 30, own["acceleration"] / 10
    if size == 5:
        return np.stack([speed, acceleration, own["heading"] / np.pi, number, lowest], axis=1)
    braking = np.zeros(len(number))
    for row in range(len(number)):
        braking[row] = 1.0 if lowest[row] < -0.15 else 0.95 * braking[max(row - 1, 0)]
    return np.stack([speed, acceleration, number, lowest, braking, closing], axis=1)
