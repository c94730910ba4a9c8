"""Where the time of a verdict goes: ``python -m benchmarks.verdict [RUN]``.

Drives the float policy, every candidate of RUN and the gate's actors through RUN's scenarios of the convoy world, in
one process and in several, and holds their outcomes against each other byte by byte. Without RUN: the reference policy
and a candidate calibrated on random observations, on 2,000 + 1,000 scenarios.

Seconds are of CPU, of all processes; wall times and the speed-up mean something on an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from quant.errors import InputError
from quant.evaluation.actors import NEUTRAL, Actor, gate_actors
from quant.evaluation.closed_loop import CHUNK, drive
from quant.evaluation.outcomes import SliceOutcome
from quant.policy import Observations, Policy, load_policy
from quant.runners import FloatRunner, Int8Runner
from quant.runners.gather import Peers
from quant.runs.settings import read_settings
from quant.tracks.candidate import Candidate
from quant.worlds import convoy_course
from quant.worlds.convoy_scenarios import STEPS
from quant.worlds.reference import reference_policy_path
from quant.worlds.rollout import Recorder, rollout
from quant.worlds.scenarios import LOSSY, NOMINAL, ScenarioSet
from quant.worlds.world import CONVOY, World, load_world
from tests.runners.candidates import quantize_policy

Outcomes = dict[str, tuple[SliceOutcome, ...]]


@dataclass(frozen=True)
class Job:
    """What is driven."""

    policy: Policy
    candidates: Mapping[str, Candidate]
    world: World
    scenarios: ScenarioSet

    @property
    def actors(self) -> list[Actor]:
        """Float, candidates, and the gate's two."""
        candidates = [Actor(name, candidate) for name, candidate in self.candidates.items()]
        return [Actor("float", self.policy), *candidates, *gate_actors(self.policy)]


def job_of(run: Path | None) -> Job:
    if run is None:
        policy, world = load_policy(reference_policy_path()), load_world(CONVOY)
        scenarios = world.draw("test", 1, {NOMINAL: 2000, LOSSY: 1000})
        return Job(policy, {"int8": quantize_policy(policy)}, world, scenarios)
    from quant.runs.reading import read_candidates, read_policy, read_scenarios
    from quant.runs.sources import world_of

    settings = read_settings(run)
    world_of_run = world_of(settings)
    scenarios_of_run = read_scenarios(run, world_of_run)
    if world_of_run is None or scenarios_of_run is None or world_of_run.spec != CONVOY:
        raise InputError("was not driven in the convoy world", where=run)
    return Job(read_policy(run), read_candidates(run, settings), world_of_run, scenarios_of_run)


def cpu() -> float:
    """Seconds of this process and of those it has seen the end of."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def verdict(job: Job, workers: int) -> tuple[Outcomes, dict[str, Any]]:
    stages: dict[str, float] = {}
    wall, spent = time.perf_counter(), cpu()
    outcomes = drive(
        job.actors,
        job.world,
        job.scenarios,
        workers=workers,
        timed=lambda actor, name, seconds: stages.update({f"{actor} on {name}": seconds}),
    )
    wall, spent = time.perf_counter() - wall, cpu() - spent
    stages["processes and tasks"] = spent - sum(stages.values())
    return outcomes, {"workers": workers, "wall": wall, "cpu": spent, "stages": stages}


def same(one: Outcomes, other: Outcomes) -> bool:
    pairs = [pair for name in one for pair in zip(one[name], other[name], strict=True)]
    return all(
        np.array_equal(a.success, b.success)
        and (a.collision is None) == (b.collision is None)
        and (a.collision is None or b.collision is None or np.array_equal(a.collision, b.collision))
        and (a.needless, a.reward) == (b.needless, b.reward)
        for a, b in pairs
    )


def seen_by(job: Job, scenarios: ScenarioSet) -> list[Observations]:
    """What the float policy sees at every twentieth step of a chunk."""
    recorder = Recorder()
    rollout(job.world, scenarios, job.actors[0].build(), record=recorder)
    return [recorder.observations[recorder.steps == step] for step in range(10, STEPS, 20)]


def best(function: Callable[[], object], repeats: int) -> float:
    """The least CPU seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def decisions(job: Job, seen: list[Observations], repeats: int) -> dict[str, float]:
    """Decisions a CPU second of each driver that computes something, on what is met on the road."""
    count = sum(len(part) for part in seen)
    acts = {actor.name: actor.build() for actor in job.actors if actor.name != NEUTRAL}
    return {
        name: count / best(lambda act=act: [act(part) for part in seen], repeats)  # type: ignore[misc]
        for name, act in acts.items()
    }


def sharing(job: Job, scenarios: ScenarioSet, repeats: int) -> dict[str, float]:
    """CPU seconds of all drivers through a chunk: what nobody changes computed for each, and once."""
    acts = [actor.build() for actor in job.actors]

    def forget() -> None:
        convoy_course.luck.cache_clear()
        convoy_course.course.cache_clear()

    def for_each() -> None:
        for act in acts:
            forget()
            rollout(job.world, scenarios, act)

    def once() -> None:
        forget()
        for act in acts:
            rollout(job.world, scenarios, act)

    # In turn, so that whatever else the machine does meets both.
    pairs = [(best(for_each, 1), best(once, 1)) for _ in range(repeats)]
    return dict(zip(("for each driver", "once"), map(min, *pairs), strict=True))


def distinct(job: Job, seen: list[Observations], repeats: int) -> dict[str, float]:
    """What encoding each distinct peer once could save, and what finding them costs, in CPU seconds a step."""
    name, candidate = next(iter(job.candidates.items()))
    runner, peers = Int8Runner(candidate), [Peers.of(part).features.T for part in seen]
    codes = [candidate.peer_input.quantize(part) for part in peers]
    keys = [np.ascontiguousarray(part).view(f"V{part.shape[1] * part.itemsize}").ravel() for part in codes]
    floats = [np.ascontiguousarray(part).view(f"V{part.shape[1] * 4}").ravel() for part in peers]
    count, float_runner = sum(len(part) for part in codes), FloatRunner(job.policy)
    return {
        "distinct codes within a step": sum(len(set(part.tolist())) for part in keys) / count,
        "distinct codes over the steps looked at": len(set(np.concatenate(keys).tolist())) / count,
        "distinct floats within a step": sum(len(set(part.tolist())) for part in floats) / count,
        f"seconds to encode ({name})": best(lambda: [runner.engine.invoke("peer_encoder", c) for c in codes], repeats)
        / len(seen),
        "seconds to find the distinct codes": best(lambda: [_unique(part) for part in codes], repeats) / len(seen),
        "seconds of a float decision": best(lambda: [float_runner.values(part) for part in seen], repeats) / len(seen),
    }


def _unique(codes: NDArray[Any]) -> Any:
    """Six bytes as one 48-bit number: the fastest way found."""
    key = np.zeros(len(codes), np.uint64)
    for column in codes.astype(np.uint8).T:
        key = key << np.uint64(8) | column
    return np.unique(key, return_inverse=True)


def measure(job: Job, workers: int, repeats: int) -> dict[str, Any]:
    chunk = job.scenarios.of_slice(NOMINAL)[:CHUNK]
    alone, one = verdict(job, 1)
    together, several = verdict(job, workers)
    driven = len(job.scenarios) * STEPS
    with threadpool_limits(1):
        seen = seen_by(job, chunk)
        per_actor = {
            actor.name: driven / sum(v for k, v in one["stages"].items() if k.startswith(f"{actor.name} on "))
            for actor in job.actors
        }
        return {
            "episodes": len(job.scenarios),
            "drivers": len(job.actors),
            "same bytes": same(alone, together),
            "verdicts": [one, several],
            "speed-up": one["wall"] / several["wall"],
            "convoy-steps a CPU second, driven": per_actor,
            "decisions a CPU second": decisions(job, seen, repeats),
            "CPU seconds of a chunk": sharing(job, chunk, max(repeats, 2)),
            "peers": distinct(job, seen, repeats),
        }


def show(figures: Mapping[str, Any]) -> None:
    one, several = figures["verdicts"]
    print(f"{figures['drivers']} drivers, {figures['episodes']} episodes each; CPU seconds")
    print(f"{'':28}{'1 process':>12}{several['workers']:>4} processes")
    for stage, seconds in one["stages"].items():
        print(f"{stage:28}{seconds:12.2f}{several['stages'][stage]:14.2f}")
    for name in ("cpu", "wall"):
        print(f"{name:28}{one[name]:12.2f}{several[name]:14.2f}")
    print(f"{'speed-up by wall':28}{'':12}{figures['speed-up']:14.2f}")
    print(f"outcomes equal in every byte: {'yes' if figures['same bytes'] else 'NO'}\n")
    for title in ("convoy-steps a CPU second, driven", "decisions a CPU second"):
        print(title)
        for name, rate in figures[title].items():
            print(f"  {name:26}{rate:12,.0f}")
    chunk = figures["CPU seconds of a chunk"]
    print("\nCPU seconds of a chunk, all drivers; what no driver changes is computed")
    for name, seconds in chunk.items():
        print(f"  {name:26}{seconds:12.2f}")
    print(f"  {'ratio':26}{chunk['once'] / chunk['for each driver']:12.2f}")
    print("\nwould encoding each distinct peer once pay?")
    for name, value in figures["peers"].items():
        text = f"{value:.2%}" if name.startswith("distinct") else f"{value * 1e6:,.0f} us"
        print(f"  {name.removeprefix('seconds '):44}{text:>12}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN")
    parser.add_argument("--workers", type=int, default=2, help="processes of the second verdict")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    arguments = parser.parse_args()
    figures = measure(job_of(arguments.run), arguments.workers, arguments.repeats)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)


if __name__ == "__main__":
    main()
