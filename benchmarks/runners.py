"""Decisions per second of each runner on one thread: ``python -m benchmarks.runners``.

The candidate has random weights in the plan's shape (encoder 6-32-32, head 36-64-4) or, with ``--box``, in the field's
(head 38-64-64-1 tanh). An observation has 8 slots and 3 peers on average.
"""

from __future__ import annotations

import argparse
import time

from threadpoolctl import threadpool_limits

from quant.observation.observations import Observations
from quant.runners import ENGINES, FloatRunner, Int8Runner, Runner
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy


def decisions_per_second(runner: Runner, observations: Observations, repeats: int) -> float:
    runner.values(observations)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        runner.values(observations)
        times.append(time.perf_counter() - start)
    return len(observations) / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", action="store_true", help="a 64-64 tanh head and one continuous action")
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    policy = box_policy() if arguments.box else random_policy()
    candidate = quantize_policy(policy)
    observations = random_observations(arguments.decisions, seed=2, ego=policy.ego_size)
    print(f"{observations.counts.mean():.2f} peers on average, {arguments.decisions} decisions, one thread")
    with threadpool_limits(1):
        print(f"{'float':14}{decisions_per_second(FloatRunner(policy), observations, arguments.repeats):12,.0f} /s")
        for name in ENGINES:
            rate = decisions_per_second(Int8Runner(candidate, name), observations, arguments.repeats)
            print(f"{name:14}{rate:12,.0f} /s")


if __name__ == "__main__":
    main()
