"""Convoy-steps per CPU-second: ``python -m benchmarks.worlds``.

Once with the drawing of each convoy's luck and once without, without a policy and with some. CPU time of one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from quant.policy import load_policy
from quant.worlds import rules
from quant.worlds.convoy import ConvoyVectorEnv
from quant.worlds.convoy_scenarios import STEPS
from quant.worlds.reference import reference_policy_path
from quant.worlds.rollout import Act, rollout
from quant.worlds.scenarios import LOSSY, NOMINAL, ScenarioSet
from quant.worlds.world import load_world


def bare(scenarios: ScenarioSet) -> tuple[float, float]:
    """CPU-seconds of making and resetting, and of all steps."""
    actions = np.zeros(len(scenarios), np.int64)
    start = time.process_time()
    env = ConvoyVectorEnv(scenarios)
    env.reset()
    made = time.process_time()
    for _ in range(STEPS):
        env.step(actions)
    return made - start, time.process_time() - made


def rolled(scenarios: ScenarioSet, act: Act) -> float:
    """CPU-seconds of a rollout."""
    start = time.process_time()
    rollout(load_world("convoy"), scenarios, act)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--convoys", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    half = arguments.convoys // 2
    scenarios = load_world("convoy").draw("test", 1, {NOMINAL: arguments.convoys - half, LOSSY: half})
    steps = len(scenarios) * STEPS
    policy = load_policy(reference_policy_path())
    with threadpool_limits(1):
        times = np.array([bare(scenarios) for _ in range(arguments.repeats)])
        acts: dict[str, Act] = {
            "rollout, never braking": rules.neutral,
            "rollout, rule": rules.rule,
            "rollout, float policy": lambda seen: policy.action_space.decide(policy.forward(seen).values),
        }
        rows = {"steps alone": times[:, 1].min(), "with making and reset": times.sum(axis=1).min()}
        rows |= {name: min(rolled(scenarios, act) for _ in range(3)) for name, act in acts.items()}
    print(f"{len(scenarios)} convoys, {STEPS} steps: convoy-steps per CPU-second")
    for name, seconds in rows.items():
        print(f"{name:26}{steps / seconds:12,.0f}")


if __name__ == "__main__":
    main()
