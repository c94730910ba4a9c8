"""The tables, rendered: every figure that decides is on the screen, at 80 columns and without colour."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from quant.acceptance.decision import decide
from quant.evaluation.evaluation import Evaluation
from quant.policy.policy import Fact
from quant.report.terminal import report
from quant.runners import Difference, EngineParity, ParityReport
from tests.evaluation.synthetic import (
    LIMITS,
    assessed,
    candidate,
    driven,
    evaluated,
    frames,
    reference,
    undriven_reference,
)

EXACT = EngineParity(Difference(1000, 0, 0), Difference(400, 0, 0), Difference(400, 0, 0), 0)
LITERT = EngineParity(Difference(1000, 14, 2), Difference(400, 2, 1), Difference(400, 5, 1), 3)
PARITY = ParityReport(200, EXACT, LITERT)
FACTS = (Fact("pooling", "max", "assumed", "the checkpoint does not say"),)


def rendered(original: Evaluation, contestants: dict[str, Evaluation], width: int) -> str:
    assessments = [assessed(candidate(track), evaluation, original) for track, evaluation in contestants.items()]
    evaluations = {"float": original} | contestants
    stream = io.StringIO()
    console = Console(file=stream, width=width, no_color=True, force_terminal=False)
    console.print(report(evaluations, decide(assessments, evaluations, LIMITS), FACTS, {"ptq": PARITY}))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_comparison_is_whole_at_any_usual_width(width: int) -> None:
    contestants = {
        "ptq": evaluated(candidate("ptq"), driven(20, 8)),
        "qat": evaluated(candidate("qat"), driven(4, 26), frames(950, 0.0321)),
    }
    text = rendered(reference(), contestants, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in [
        "99.00%",  # success of the float policy, 396 of 400
        "16 : 0",  # ptq against float on the nominal slice
        "0.0321",
        "3,000 + 5,000",
        "FAIL",
        "not shown (1)",  # ptq lost 4 points on the nominal slice
        "4.00 (<= 5.9",
        "could see (80 %)",
        "UNPROVEN",
        "neutral on nominal: success 50.0%",
        "Deploy PTQ",
        "qat is out: success_drop[lossy]: fail",
        "winner provisional",
        "0 peers",
        "assumed: the checkpoint does",
        "TFLite-Micro equal in every byte",
        "1.4% of the encoder",
        "3 of 200 decisions",
    ]:
        assert figure in text or figure in " ".join(text.split()), figure
    lines = text.splitlines()
    assert [line for line in lines if line.strip().startswith("success_drop[lossy] ")], "markup took the slice's name"
    assert "same half of range" not in text


def test_candidates_are_shown_against_each_other_two_by_two() -> None:
    contestants = {
        "ptq": evaluated(candidate("ptq"), driven(10, 4)),
        "ptq-gptq": evaluated(candidate("ptq-gptq"), driven(10, 4)),
        "qat": evaluated(candidate("qat"), driven(4, 4)),
    }
    text = rendered(reference(), contestants, 80)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "ptq : qat 0 : 6 0.031 0.094 6 : 0 0.031 1.51" in rows
    assert "ptq : ptq-gptq 0 : 0 1 1 0 : 0 1 1.51" in rows
    assert "points lost 1.50 (<= 2.87) 1.50 (<= 2.87) 0.00 (<= 0.67)" in rows
    assert "Deploy QAT (a tie with PTQ and PTQ-GPTQ, decided on collisions)." in " ".join(text.split())


def test_without_a_world_the_screen_says_that_driving_was_not_tested() -> None:
    original = undriven_reference()
    text = rendered(original, {"ptq": evaluated(candidate("ptq"), None)}, 80)
    assert "not tested" in text
    assert "Warning: driving was not tested" in text
    assert "McNemar" not in text
