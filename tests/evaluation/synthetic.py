"""Hand-made candidates and evaluations, so that each rule can be tried on figures a reader can check in the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quant.acceptance.assessment import Assessment, assess
from quant.acceptance.device import DeviceEvidence
from quant.acceptance.limits import Limits
from quant.evaluation.evaluation import FLOAT, ClosedLoop, Evaluation
from quant.evaluation.open_loop import Closeness, OpenLoop
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.statistics import Bits, Paired, mean, proportion
from quant.evaluation.stress.found import SPREAD, Found
from quant.evaluation.stress.results import Stress, Tally, TrackStress, Unsettled
from quant.observation.observations import Observations
from quant.observation.resolve import Sizes, resolve
from quant.policy.policy import Dense, Discrete, Policy
from quant.tracks.candidate import Affine, Candidate, SubModel

SLICES = {"nominal": 400, "lossy": 200}
UNMADE: dict[str, str | None] = {"peer_encoder": None, "policy_head": None, "description": None}
"""What float has none of."""
HASHES = {"policy": "a" * 64, "dataset": "b" * 64, "scenarios": "c" * 64}
LIMITS = Limits()


def candidate(track: str, encoder_bytes: int = 3000, head_bytes: int = 5000) -> Candidate:
    one = Affine(np.ones(1, np.float32), np.zeros(1, np.float32))
    return Candidate(
        track,
        SubModel("peer_encoder", b"e" * encoder_bytes),
        SubModel("policy_head", b"h" * head_bytes),
        one,
        one,
        "max",
        Discrete(4),
        8,
        HASHES["policy"],
        HASHES["dataset"],
    )


def bits(n: int, failures: int, shift: int = 0) -> Bits:
    """Episodes of which those from ``shift`` on fail."""
    success = np.ones(n, np.bool_)
    success[shift : shift + failures] = False
    return success


def outcome(name: str, n: int, failures: int, shift: int = 0, reward: float = -1.0) -> SliceOutcome:
    success = bits(n, failures, shift)
    return SliceOutcome(name, success, ~success, mean(np.full(n, 0.25)), mean(np.full(n, reward)))


def slices(failures: Mapping[str, int], shift: int = 0, reward: float = -1.0) -> tuple[SliceOutcome, ...]:
    return tuple(outcome(name, n, failures[name], shift, reward) for name, n in SLICES.items())


def driven(nominal: int, lossy: int, shift: int = 0, reward: float = -1.0) -> tuple[SliceOutcome, ...]:
    return slices({"nominal": nominal, "lossy": lossy}, shift, reward)


def reference(neutral: int = 200, three_bit: int = 100) -> Evaluation:
    """The float policy fails 4 episodes of each slice; the gate's actors so many nominal, half as many lossy."""
    gate = {"neutral": driven(neutral, neutral // 2), "float-3bit": driven(three_bit, three_bit // 2)}
    return Evaluation(
        FLOAT, "float32, NumPy", HASHES | UNMADE, {"specification": "synthetic"},
        ClosedLoop(driven(4, 4), (), gate), None, seeing(),
    )  # fmt: skip


def seeing() -> dict[str, Closeness]:
    """What the gate's actors show of held-out frames that tell good from bad."""
    return {"neutral": closeness(1000, 600), "float-3bit": closeness(1000, 400)}


def closeness(n: int = 1000, same: int = 990, mae: float = 0.01) -> Closeness:
    return Closeness(n, proportion(same, n), None, mae, 10 * mae)


def frames(same: int = 990, mae: float = 0.01) -> OpenLoop:
    one = closeness(1000, same, mae)
    return OpenLoop(None, one, (one, None, one), (("recorded", one),))


def evaluated(
    made: Candidate, driving: tuple[SliceOutcome, ...] | None, opened: OpenLoop | None = None, **hashes: str
) -> Evaluation:
    closed = None
    if driving is not None:
        original = reference().closed_loop
        assert original is not None
        pairs = zip(original.slices, driving, strict=True)
        closed = ClosedLoop(driving, tuple(Paired.of(f.success, c.success) for f, c in pairs))
    world = None if driving is None else {"specification": "synthetic"}
    return Evaluation(
        made.track, "TFLM int8 arithmetic, NumPy", HASHES | made.identity | hashes, world, closed, opened or frames()
    )


def undriven_reference() -> Evaluation:
    hashes = HASHES | UNMADE
    return Evaluation(FLOAT, "float32, NumPy", hashes, None, None, None, seeing())


def assessed(
    made: Candidate, evaluation: Evaluation, original: Evaluation | None = None, device: DeviceEvidence | None = None
) -> Assessment:
    devices = () if device is None else (device,)
    return assess(made, evaluation, original or reference(), LIMITS, devices, stressed(made.track))


def stressed(*tracks: str, undeclared: tuple[str, ...] = (), **counts: Any) -> Stress:
    """A stress test in which every track shows so much, as ``missed=3``."""
    tally = Tally(**{"frames": 1_000_000, "acts": 300_000, "rests": 600_000, "worst": 0.05, **counts})
    nobody = np.zeros((0, 4), np.float32)
    frames = Observations(nobody, np.zeros((0, 8, 6), np.float32), np.zeros((0, 8), np.bool_))
    words = np.zeros(0, np.str_)
    nothing = Found(frames, words, words, words, np.zeros(0, np.bool_), np.zeros(0), nobody, nobody)
    shown = {track: TrackStress(track, {}, (), {SPREAD: tally}, (tally,)) for track in tracks}
    contract = resolve(Sizes(4, 6, 8), None, [])
    return Stress(
        1_000_000, 0, (1.0,), {"contract": contract.digest}, undeclared, Unsettled(0, 0, 0), shown, nothing,
        contract,
    )  # fmt: skip


def shown(**changes: Any) -> DeviceEvidence:
    """Of an ESP32 that keeps every limit."""
    good = DeviceEvidence("ESP32 rev 3.1", "esp32", "measured", 2.0, 2.5, 1000, 0, 150_000, 3_000)
    return replace(good, **changes)


def policy(width: int = 8) -> Policy:
    """A small random policy that fits the convoy world."""
    random = np.random.default_rng(3)

    def dense(outputs: int, inputs: int, activation: str) -> Dense:
        weight = random.normal(0, 1, (outputs, inputs)).astype(np.float32)
        return Dense(weight, random.normal(0, 0.1, outputs).astype(np.float32), activation)  # type: ignore[arg-type]

    return Policy((dense(width, 6, "relu"),), (dense(8, width + 4, "relu"), dense(4, 8, "linear")), "max", Discrete(4))
