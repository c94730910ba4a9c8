"""A run held against the baseline that `quant accept` wrote: ``pytest -m regression --run DIR``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from quant.acceptance.comparison import Comparison, Finding

pytestmark = pytest.mark.regression

Record = Callable[[str, object], None]


def hold(findings: Sequence[Finding], record: Record) -> None:
    """Records every figure, then fails on those that are worse or missing."""
    for finding in findings:
        record(finding.name, f"{finding.change.value}: {finding}")
    worse = [str(finding) for finding in findings if finding.regression]
    if worse:
        pytest.fail("\n".join(worse), pytrace=False)


def test_the_run_can_be_held_against_the_baseline(comparison: Comparison) -> None:
    if comparison.incomparable:
        pytest.fail(f"not comparable: {comparison.incomparable}", pytrace=False)


def test_what_would_be_deployed_is_no_worse_than_what_was(comparison: Comparison, record_property: Record) -> None:
    hold([finding for finding in comparison.findings if finding.subject == comparison.deployed], record_property)


def test_no_candidate_of_the_baseline_is_gone(comparison: Comparison, record_property: Record) -> None:
    hold([finding for finding in comparison.findings if finding.name == "candidate"], record_property)


def test_the_candidate_is_no_worse_than_it_was(comparison: Comparison, track: str, record_property: Record) -> None:
    own = [finding for finding in comparison.findings if finding.subject == track]
    if not own:
        pytest.skip(f"the baseline has no {track}")
    hold(own, record_property)
