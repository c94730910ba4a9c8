"""Does the arithmetic hold on this machine? The shipped policy against what was recorded, engine by engine.

Each test takes about a second. It says what is wrong by raising; ``quant doctor --deep`` runs each in a process of its
own, so that a crash of native code is a finding too.
"""

from __future__ import annotations

import numpy as np

from quant.dataset import Dataset, Recording, build_dataset
from quant.errors import QuantError
from quant.policy import Observations, Policy, load_policy, policy_digest
from quant.runners import FloatRunner, Int8Runner, parity
from quant.tracks.candidate import Candidate
from quant.tracks.gptq import Rounded
from quant.tracks.plan import Choice, Rewriting, calibrate, make_plan
from quant.tracks.registry import GPTQ
from quant.worlds.reference import golden_path, reference_policy_path

TOLERANCE = 1e-4
"""Of float logits, whose sums may be added in another order."""
BLOCK = 50
DECISIONS = 50


class SelfTestError(QuantError):
    """This machine computes something else."""


def float_policy() -> None:
    """The shipped policy gives what Stable-Baselines3 gave.

    Raises:
        SelfTestError: a logit is further away than the tolerance, or an action is another one.
    """
    policy, observations = _golden()
    with np.load(golden_path(), allow_pickle=False) as recorded:
        logits, actions = recorded["logits"], recorded["actions"]
    values = FloatRunner(policy).values(observations)
    worst = float(np.abs(values - logits).max())
    others = int(np.count_nonzero(policy.action_space.decide(values) != actions))
    if worst > TOLERANCE or others:
        raise SelfTestError(f"the float policy is {worst:.2g} off, {others} actions differ", where=golden_path())


def engines() -> None:
    """TFLite-Micro gives the bytes of the arithmetic that verdicts are computed in.

    Raises:
        SelfTestError: a byte differs.
    """
    candidate, observations = _candidate()
    found = parity(candidate, observations[:DECISIONS]).tflite_micro
    if found.end_to_end.differing or found.peer_encoder.differing or found.policy_head.differing:
        raise SelfTestError(
            f"TFLite-Micro differs from its arithmetic in {found.end_to_end.differing} of {found.end_to_end.outputs}"
        )


def virtual_board() -> None:
    """The firmware's core on this machine answers, and decides as the host does.

    Raises:
        SelfTestError: a decision differs.
    """
    from quant.boards.bench import Bench
    from quant.boards.pack import build_pack
    from quant.boards.virtual.board import VirtualBoard

    candidate, observations = _candidate()
    seen = observations[:DECISIONS]
    with Bench(VirtualBoard(), build_pack([candidate])) as bench:
        decided = bench.device.decide(GPTQ, seen, interfaces=False).values
    differing = int(np.count_nonzero(decided != Int8Runner(candidate).values(seen)))
    if differing:
        raise SelfTestError(f"the virtual board differs from the host in {differing} of {decided.size} values")


def _golden() -> tuple[Policy, Observations]:
    with np.load(golden_path(), allow_pickle=False) as recorded:
        observations = Observations(recorded["ego"], recorded["peers"], recorded["peer_mask"])
    return load_policy(reference_policy_path()), observations


def _dataset(policy: Policy, observations: Observations) -> Dataset:
    blocks = np.arange(len(observations), dtype=np.int64) // BLOCK
    recording = Recording("golden", "rollout", observations, blocks, "0" * 64)
    return build_dataset(policy, policy_digest(policy), [recording], 0)


def _candidate() -> tuple[Candidate, Observations]:
    """PTQ's plan without a search, its weights rounded to the nearest: as exact as any other, and made at once."""
    policy, observations = _golden()
    choice = Choice(0.05, Rewriting(), (1.0,) * len(policy.encoder), (1.0,) * len(policy.head))
    plan = make_plan(calibrate(policy, observations), choice)
    return Rounded.nearest(plan).candidate(_dataset(policy, observations)), observations
