"""Two on the same episodes: who alone succeeds, who alone collides, and what follows for a margin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quant.acceptance.contest import Contest, NonInferiority, Standing, contest, needless
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.outcomes import SliceOutcome
from quant.evaluation.power import detectable_drop
from quant.evaluation.statistics import Paired, mean
from tests.evaluation.synthetic import candidate, driven, evaluated, reference

BOTH = ("nominal", "lossy")


def standing(losses: int, wins: int, n: int = 4000, blind: str = "") -> Standing:
    table = Paired(n, n - losses - wins, losses, wins)
    return Standing("nominal", Contest("float", "ptq", table, None, None, 0.005), 0.01, blind)


@pytest.mark.parametrize(
    ("losses", "wins", "said"),
    [
        (0, 0, NonInferiority.SHOWN),
        (40, 20, NonInferiority.SHOWN),
        (45, 15, NonInferiority.OPEN),
        (65, 20, NonInferiority.OPEN),
        (100, 20, NonInferiority.INFERIOR),
    ],
)
def test_a_margin_is_kept_broken_or_neither(losses: int, wins: int, said: NonInferiority) -> None:
    """Of 4000 episodes 40 are the margin of a point."""
    one = standing(losses, wins)
    assert one.noninferiority is said
    loss = one.loss
    # As both bounds at 95 % say, and neither the loss itself.
    assert (loss.upper <= 0.01, loss.lower > 0.01) == (said is NonInferiority.SHOWN, said is NonInferiority.INFERIOR)


def test_the_words_name_the_margin_the_loss_and_its_bound() -> None:
    assert standing(40, 20).sentence.startswith(
        "ptq on nominal is non-inferior within 1 point (success lost: 0.50 points"
    )
    inferior = standing(100, 20)
    assert f"inferior by more than 1 point (success lost: 2.00 points, 95 % bound {100 * inferior.loss.lower:.2f}" in (
        inferior.sentence
    )


def test_a_blind_slice_shows_nothing_of_a_margin() -> None:
    assert standing(0, 0, blind="nobody ever loses here").noninferiority is NonInferiority.OPEN
    assert "the slice is blind: nobody ever loses here" in standing(0, 0, blind="nobody ever loses here").sentence


def test_success_collisions_and_braking_come_together() -> None:
    made = evaluated(candidate("ptq"), driven(9, 6))
    held = contest(reference(), made, BOTH)
    assert (held.success.n, held.success.losses, held.success.wins) == (600, 7, 0)
    assert held.safety is not None
    # Whoever fails collides here: the candidate alone in 7.
    assert (held.safety.losses, held.safety.wins) == (7, 0)
    assert held.needless == (0.25, 0.25)
    assert held.detectable == detectable_drop(held.success)
    document = held.to_json()
    assert (document["only_second_collides"], document["only_first_collides"]) == (7, 0)
    assert "float alone collides in 0, ptq alone in 7 (p = 0.016)" in held.sentence
    assert "could have been seen (80 %)" in held.sentence


def silent(outcomes: tuple[SliceOutcome, ...]) -> tuple[SliceOutcome, ...]:
    """Of a world that tells of success only."""
    return tuple(replace(one, collision=None, needless=None) for one in outcomes)


def test_what_a_world_does_not_say_is_left_out() -> None:
    made = evaluated(candidate("ptq"), silent(driven(9, 6)))
    held = contest(reference(), made, BOTH)
    assert (held.safety, held.needless) == (None, None)
    assert "collides" not in held.sentence and "braking" not in held.sentence
    assert held.to_json()["collision_p"] is None
    # Known on one slice is not known of both.
    half = evaluated(candidate("ptq"), (driven(9, 6)[0], *silent(driven(9, 6)[1:])))
    assert contest(reference(), half, BOTH).safety is None
    assert contest(reference(), half, ("nominal",)).safety is not None


def test_needless_braking_is_the_mean_over_episodes_not_over_slices() -> None:
    calm, harsh = driven(4, 4)
    made = evaluated(candidate("ptq"), (calm, replace(harsh, needless=mean(np.full(200, 1.0)))))
    assert needless(made, BOTH) == pytest.approx((400 * 0.25 + 200 * 1.0) / 600)


def test_other_episodes_are_refused() -> None:
    made: Evaluation = evaluated(candidate("ptq"), driven(4, 4))
    with pytest.raises(ValueError, match="same scenarios"):
        contest(contest_part(reference()), made, BOTH)


def contest_part(whole: Evaluation) -> Evaluation:
    assert whole.closed_loop is not None
    return replace(whole, closed_loop=replace(whole.closed_loop, slices=whole.closed_loop.slices[:1]))
