"""The same bytes, however the work is dealt out: workers, threads, chunks, what was computed for the driver before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from quant.evaluation import closed_loop, open_loop
from quant.evaluation.actors import Actor, Neutral, gate_actors
from quant.evaluation.closed_loop import drive
from quant.evaluation.evaluate import evaluate
from quant.evaluation.outcomes import SliceOutcome
from quant.files import sha256
from quant.observation.observations import Observations
from quant.policy.policy import Discrete, Policy, Pooling
from quant.runners.gather import Peers
from quant.runners.runner import FloatRunner, Int8Runner
from quant.worlds import convoy_course, rules
from quant.worlds.rollout import Episodes, rollout
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import load_world
from tests.runners.candidates import quantize_policy, random_observations, random_policy

WORLD = load_world("convoy")
FRAMES = random_observations(400)


def scenarios() -> ScenarioSet:
    return WORLD.draw("test", 17, {"nominal": 24, "lossy": 12})


class Herd(Neutral):
    """Decides by how many are asked at once, as a float product's last bits may."""

    def __call__(self, observations: Observations) -> NDArray[Any]:
        return np.full(len(observations), len(observations) % 4, np.int64)


def actors() -> list[Actor]:
    policy, herd = random_policy(4), Herd(Discrete(4))
    return [Actor("float", policy), Actor("herd", herd), Actor("int8", quantize_policy(policy)), *gate_actors(policy)]


def digests(outcomes: Mapping[str, Sequence[SliceOutcome]]) -> dict[str, str]:
    """Of every episode's outcome and every figure, by actor."""
    return {
        name: sha256(b"".join(np.array(item).tobytes() for one in slices for item in plain(one)))
        for name, slices in outcomes.items()
    }


def plain(one: SliceOutcome) -> list[object]:
    assert one.needless is not None
    return [one.success, one.collision, astuple(one.needless), astuple(one.reward)]


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    """Driven by one process, twelve at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop, "CHUNK", 12)
        return digests(drive(actors(), WORLD, scenarios(), workers=1))


def test_any_number_of_workers(alone: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(alone.values())) == 5
    monkeypatch.setattr(closed_loop, "CHUNK", 12)
    for workers in (2, 3, 5):
        assert digests(drive(actors(), WORLD, scenarios(), workers=workers)) == alone


def test_integers_do_not_depend_on_the_chunk(alone: dict[str, str]) -> None:
    """Nor does what acts without numbers; a float policy may, in its last bits, on some processors."""
    exact = [actor for actor in actors() if actor.name in ("int8", "neutral")]
    assert digests(drive(exact, WORLD, scenarios(), workers=1)) == {actor.name: alone[actor.name] for actor in exact}


@pytest.mark.parametrize("batches", [1, 4])
def test_a_world_that_runs_few_at_once_has_the_same_batches_in_tasks_of_any_size(
    alone: dict[str, str], batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_loop, "BATCHES", batches)
    driven = digests(drive(actors()[:2], replace(WORLD, batch=12), scenarios(), workers=1))
    assert driven == {name: alone[name] for name in ("float", "herd")}


def evaluated() -> dict[str, str]:
    """All that an evaluation says, by track."""
    policy = random_policy(4)
    candidate = replace(quantize_policy(policy), track="ptq", policy_sha256="1" * 64, dataset_sha256="2" * 64)
    evaluations = evaluate(
        policy,
        {"ptq": candidate},
        FRAMES,
        policy_sha256="1" * 64,
        dataset_sha256="2" * 64,
        world=WORLD,
        scenarios=scenarios().of_slice("nominal"),
        workers=1,
    )
    return {name: sha256(json.dumps(one.to_json()).encode()) for name, one in evaluations.items()}


COMMAND = """
import json
import numpy as np
from threadpoolctl import threadpool_info
from tests.evaluation.test_same_bytes import evaluated
print(json.dumps([[pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"], evaluated()]))
"""


def test_any_number_of_threads() -> None:
    """What the environment grants BLAS changes nothing, neither driving nor on held-out frames."""
    said = []
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", COMMAND],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(json.loads(run.stdout))
    (one, first), (two, second) = said
    assert set(one) == {1}
    if len(os.sched_getaffinity(0)) > 1:
        assert set(two) == {2}
    assert first == second == evaluated()


def test_held_out_frames_are_compared_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    compare = open_loop.compare

    def watched(*given: Any, **named: Any) -> open_loop.OpenLoop:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return compare(*given, **named)

    monkeypatch.setattr(open_loop, "compare", watched)
    with threadpool_limits(2):
        evaluate(random_policy(4), {}, FRAMES, policy_sha256="1" * 64, dataset_sha256="2" * 64)
    assert set(threads) == {1}


def bytes_of(episodes: Episodes) -> str:
    return sha256(b"".join(getattr(episodes, item.name).tobytes() for item in fields(Episodes)))


def test_the_convoy_world_is_the_one_it_was() -> None:
    """It adds, multiplies, divides and compares, which every processor does alike: a scenario's end never changes."""
    chosen = WORLD.draw("test", 17, {"nominal": 50, "lossy": 30})
    assert {name: bytes_of(rollout(WORLD, chosen, act)) for name, act in DRIVERS.items()} == GOLDEN


DRIVERS = {"never": rules.neutral, "always": rules.always_brake, "rule": rules.rule}
GOLDEN = {
    "never": "65e98d35b55110837a5fb07dda3ffea69e3af702de4e392f98ca8ed059125624",
    "always": "7c923d0c416517a58468566e1e695ce323d1be5c767fe60266522e25d4ab897f",
    "rule": "3def3b56da8fdce07a647bfa34864271437b3a78a38eec6db234e5b0f58703be",
}


def test_what_drivers_share_is_not_changed_by_driving() -> None:
    chosen = scenarios()
    fresh = bytes_of(rollout(WORLD, chosen, rules.rule))
    assert convoy_course.course(chosen) is convoy_course.course(chosen[np.arange(len(chosen))])
    rollout(WORLD, chosen, rules.always_brake)
    assert bytes_of(rollout(WORLD, chosen, rules.rule)) == fresh
    for shared in (convoy_course.luck(chosen), convoy_course.course(chosen)):
        for item in fields(shared):
            with pytest.raises(ValueError, match="read-only"):
                getattr(shared, item.name)[0] = 0


def test_stages_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "CHUNK", 20)
    told: list[tuple[str, str]] = []
    seconds: list[float] = []

    def timed(actor: str, name: str, spent: float) -> None:
        told.append((actor, name))
        seconds.append(spent)

    drive([Actor("never", Neutral(Discrete(4)))], WORLD, scenarios(), workers=1, timed=timed)
    assert told == [("never", "nominal"), ("never", "lossy")]
    assert min(seconds) > 0
    stages: dict[str, float] = {}
    policy = random_policy(4)
    evaluate(
        policy, {}, FRAMES, policy_sha256="1" * 64, dataset_sha256="2" * 64, world=WORLD, scenarios=scenarios(),
        workers=1, timed=lambda stage, spent: stages.update({stage: spent}),
    )  # fmt: skip
    driven = [f"{name} on {part}" for name in ("float", "neutral", "float-3bit") for part in ("nominal", "lossy")]
    assert list(stages) == [*driven, "statistics", "held-out frames"]


def slots_first(seen: Observations) -> Observations:
    """The same, in memory as the convoy world has it."""
    return Observations(np.asfortranarray(seen.ego), np.asfortranarray(seen.peers), np.asfortranarray(seen.mask))


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
def test_the_float_runner_computes_what_the_policy_does(pooling: Pooling) -> None:
    policy = random_policy(2, pooling=pooling)
    expected = policy.forward(FRAMES).values
    assert FRAMES.counts.min() == 0
    values = FloatRunner(policy).values(FRAMES)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert FloatRunner(policy).values(slots_first(FRAMES)).tobytes() == values.tobytes()


def test_peers_are_the_same_in_any_order_of_memory() -> None:
    one, other = Peers.of(FRAMES), Peers.of(slots_first(FRAMES))
    for item in fields(Peers):
        assert np.array_equal(getattr(one, item.name), getattr(other, item.name))
    runner = Int8Runner(quantize_policy(random_policy(4)))
    assert runner.values(FRAMES).tobytes() == runner.values(slots_first(FRAMES)).tobytes()
    assert np.array_equal(one.scattered(one.features.T, 0)[one.mask], FRAMES.peers.swapaxes(0, 1)[one.mask])


def test_nobody_there_is_a_decision_too() -> None:
    policy: Policy = random_policy(4)
    alone = Observations(FRAMES.ego, FRAMES.peers, np.zeros_like(FRAMES.mask))
    z = np.zeros((len(alone), policy.embedding_size), np.float32)
    expected = policy.run_head(np.concatenate([z, alone.ego], axis=1))
    np.testing.assert_allclose(FloatRunner(policy).values(alone), expected, rtol=1e-5, atol=1e-6)
