"""Frames a second of a stress test on one thread, part by part: ``python -m benchmarks.stress``.

Float and each candidate decide the same frames, which are made once for all candidates. The policy has random weights
in the field's shape (encoder 6-32-32, head 64-64 tanh, one continuous action); a stack has three frames.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial

import click
from threadpoolctl import threadpool_limits

from quant.evaluation.stress.found import BEYOND, CORNERS, SPREAD, SWEPT
from quant.evaluation.stress.frames import Sampling
from quant.evaluation.stress.stress import stress
from quant.observation.observations import Observations
from quant.policy.policy import Box
from quant.runners import FloatRunner, Int8Runner
from tests.evaluation.stressed import Given, candidate_of, declared, frames_of, policy_of
from tests.runners.candidates import random_policy


def rate(work: Callable[[], object], frames: int) -> str:
    start = time.perf_counter()
    work()
    return f"{frames / (time.perf_counter() - start):12,.0f} /s"


@click.command(help=__doc__)
@click.option("--ego", type=click.Choice(["4", "6", "18"]), default="6", show_default=True, help="Features of the ego.")
@click.option("--frames", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--candidates", type=click.IntRange(1), default=1, show_default=True)
def main(ego: str, frames: int, candidates: int) -> None:
    """Prints the rates."""
    size = int(ego)
    policy = policy_of(ego=size)
    shape = random_policy(5, ego=size, hidden=(64, 64), head_activation="tanh", action_space=Box((0.0,), (1.0,)))
    contract, seen = declared(size), frames_of(size)
    made = {f"track {n}": candidate_of(policy, f"track {n}", ego=size) for n in range(candidates)}
    sampling = Sampling(contract, seen, 1 << 18, 0)
    with threadpool_limits(1):
        for group in (SPREAD, CORNERS, SWEPT, BEYOND):
            chunks = [chunk for chunk in sampling.chunks() if chunk.group == group]
            count = sum(chunk.frames for chunk in chunks)
            click.echo(f"{f'frames made, {group}':38}{rate(partial(list, map(sampling.make, chunks)), count)}")
        some = Observations.concatenate([sampling.make(chunk) for chunk in sampling.chunks()[:4]])
        click.echo(f"{'float decides':38}{rate(lambda: FloatRunner(shape).values(some), len(some))}")
        runner = Int8Runner(next(iter(made.values())))
        click.echo(f"{'a candidate decides':38}{rate(lambda: runner.values(some), len(some))}")
    whole = Given(policy, made, contract, seen)
    click.echo(f"{'all of it, search included':38}{rate(lambda: whole.run(stress, frames=frames), frames)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"{'memory, at most':38}{peak:12,.0f} MiB")


if __name__ == "__main__":
    main()
