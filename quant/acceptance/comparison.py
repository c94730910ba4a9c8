"""A run held against another one or against the baseline: what is worse, what is better, what is noise.

A figure that is a sample is worse only if it is worse by more than its rule tolerates *and* the difference is
significant after Holm's correction over all tests of the comparison; either alone is noise. A figure that is no sample
(bytes, a board's times, the error on the very same frames) has the tolerance alone. Figures taken under other
conditions are not compared, and say why; docs/decisions/0011-comparable.md has the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from quant.acceptance.baseline import CANDIDATE, Figure, Snapshot
from quant.acceptance.contest import points
from quant.acceptance.criterion import Evidence, quantity
from quant.evaluation.evaluation import FLOAT, rounded
from quant.evaluation.power import detectable_drop, holm
from quant.evaluation.statistics import LEVEL, Paired

SIGNIFICANCE = 0.05
"""Of the adjusted p."""
DEPLOYED = "deployed"
"""What would be put on the vehicle, where that is another track than it was."""
DRIVE = "drive"
"""Key of the condition that holds a drive's SHA-256: drives are told apart by what they hold, not by their names."""
FRAMES = "frames"
"""Key of what is blind on the held-out frames; slices go by their name."""
ACTS = "acts"
"""Kind of figure of the float policy that is judged: on what share of the frames it acts at all."""
BLIND_ACTING = 0.1
"""Share of what the float policy acted on before, below which it is called blind: what it agrees on proves nothing."""
NONE_BEFORE = ("missed_action", "false_action")
"""Counts of which a first one is worse however many frames were looked at, while the limit itself is 0."""
OF_SAMPLING = ("frames", "seed of the stress")
"""Conditions that say only how many frames were looked at, and which."""
PRIMARY = ("success", "agreement")
"""What a run is judged by, the first that the earlier run has: without it there is no comparison at all."""


class Change(StrEnum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "noise"
    SAME = "same"
    MISSING = "missing"
    IGNORED = "missing, ignored"
    INCOMPARABLE = "not comparable"


@dataclass(frozen=True)
class Finding:
    """One figure of both runs.

    Attributes:
        subject: the candidate, `FLOAT` or `DEPLOYED`.
        name: of the figure.
        unit: of its values.
        before, now: None where there is none.
        change: what became of it.
        tolerance: what its rule tolerates, in ``unit``.
        test: which test was made; empty for none.
        p: of that test, adjusted for all tests of the comparison; None without one.
        detectable: the smallest drop the test could have seen (:func:`quant.evaluation.power.detectable_drop`), even as
            the first step of the correction; None where that is not known.
        reason: why it cannot be compared, or what counts instead of a test.
    """

    subject: str
    name: str
    unit: str
    before: float | None
    now: float | None
    change: Change
    tolerance: float | None = None
    test: str = ""
    p: float | None = None
    detectable: float | None = None
    reason: str = ""

    @property
    def judged(self) -> bool:
        """Whether it can make a regression: the float policy is shown beside the candidates, but has to act."""
        return self.subject != FLOAT or self.name.partition("[")[0] == ACTS

    @property
    def regression(self) -> bool:
        """It is worse, or missing, and judged."""
        return self.judged and self.change in (Change.WORSE, Change.MISSING)

    @property
    def difference(self) -> float | None:
        """Now minus before."""
        return None if self.before is None or self.now is None else self.now - self.before

    def __str__(self) -> str:
        if self.change is Change.MISSING:
            why = f" ({self.reason})" if self.reason.startswith("blind") else ""
            return f"{self.subject} {self.name} missing{why}"
        if self.before is None or self.now is None:
            return f"{self.subject} {self.name}: {self.reason}"
        p = "" if self.p is None else " (p < 0.001)" if self.p < 0.001 else f" (p = {self.p:.2g})"
        blind = f" ({self.reason})" if self.reason.startswith("blind") else ""
        values = f"{quantity(self.before, self.unit)} -> {quantity(self.now, self.unit)}"
        return f"{self.subject} {self.name} {values}{p}{blind}"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        numbers = {
            key: None if value is None else rounded(value)
            for key, value in (
                ("before", self.before),
                ("now", self.now),
                ("difference", self.difference),
                ("tolerance", self.tolerance),
                ("p", self.p),
                ("detectable", self.detectable),
            )
        }
        return {
            "subject": self.subject,
            "name": self.name,
            "unit": self.unit,
            "change": self.change.value,
            "regression": self.regression,
            **numbers,
            "test": self.test or None,
            "reason": self.reason or None,
        }


@dataclass(frozen=True)
class Comparison:
    """All findings and what they mean.

    Attributes:
        before, now: names of the two.
        findings: subject after subject.
        changed: what of the inputs is another: policy, dataset, who wins.
        meaning: sentences.
        tests: how many were made, and so corrected for.
        deployed: the subject that would be deployed: the candidate that wins as it did before, or `DEPLOYED`.
    """

    before: str
    now: str
    findings: tuple[Finding, ...]
    changed: tuple[str, ...]
    meaning: tuple[str, ...]
    tests: int
    deployed: str

    @property
    def regressions(self) -> tuple[Finding, ...]:
        """What makes the exit code 1."""
        return tuple(finding for finding in self.findings if finding.regression)

    @property
    def incomparable(self) -> str:
        """Why the two cannot be compared at all; empty where they can.

        They cannot if no figure they are judged by (`PRIMARY`) was taken under the same conditions: that model sizes
        are equal must not pass for a run that drives as well.
        """
        judged = [finding for finding in self.findings if finding.judged]
        for kind in PRIMARY:
            primary = [finding for finding in judged if finding.name.partition("[")[0] == kind]
            if primary:
                stuck = all(finding.change is Change.INCOMPARABLE for finding in primary)
                return primary[0].reason if stuck else ""
        return "there is neither success nor agreement of a candidate in both"

    @property
    def exit_code(self) -> int:
        """1 for a regression, 2 where the two are not comparable, otherwise 0."""
        return 1 if self.regressions else 2 if self.incomparable else 0

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        if self.regressions:
            first, more = self.regressions[0], len(self.regressions) - 1
            return f"REGRESSION: {first}{f', and {more} more' if more else ''}."
        if self.incomparable:
            return f"Not comparable: {self.incomparable}."
        judged = [finding for finding in self.findings if finding.judged]
        better = sum(finding.change is Change.BETTER for finding in judged)
        apart = sum(finding.change is Change.INCOMPARABLE for finding in judged)
        held = len(judged) - apart - sum(finding.change is Change.IGNORED for finding in judged)
        words = [f"{held} figures hold", *([f"{better} of them better"] if better else [])]
        return f"No regression: {', '.join([*words, *([f'{apart} not comparable'] if apart else [])])}."

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "before": self.before,
            "now": self.now,
            "headline": self.headline,
            "deployed": self.deployed,
            "exit_code": self.exit_code,
            "incomparable": self.incomparable or None,
            "changed": list(self.changed),
            "meaning": list(self.meaning),
            "tests": self.tests,
            "correction": "Holm",
            "significance": SIGNIFICANCE,
            "findings": [finding.to_json() for finding in self.findings],
        }


def compare(before: Snapshot, now: Snapshot) -> Comparison:
    """Holds every candidate of ``before`` against the one of the same name in ``now``.

    Where another track wins than before, the two winners are compared as well. The float policies are compared and
    shown, not judged, for a candidate is held against what was accepted, whatever its own float policy does; but one
    that hardly acts any more is a regression, since every candidate of it agrees with it.

    Args:
        before: the baseline, or the earlier run; its rules hold, and what is blind in it proves nothing here.
        now: the later run.
    """
    pairs = [(track, track, track) for track in before.subjects]
    if before.winner and now.winner and before.winner != now.winner:
        pairs.insert(0, (DEPLOYED, before.winner, now.winner))
    drafts = [draft for pair in pairs for draft in _drafts(before, now, *pair)]
    judged = [draft for draft in drafts if draft.finding.judged]
    findings = (*_settled(judged), *_settled([draft for draft in drafts if not draft.finding.judged]))
    if before.winner and now.winner is None and not _other_interface(before, now):
        lost = Finding(DEPLOYED, "winner", "", None, None, Change.MISSING, reason="every candidate fails a criterion")
        findings = (lost, *findings)
    return Comparison(
        before.name,
        now.name,
        findings,
        tuple(_changed(before, now)),
        tuple(_meaning(before, now, findings)),
        sum(draft.p is not None for draft in judged),
        now.winner if now.winner and now.winner == before.winner else DEPLOYED,
    )


@dataclass(frozen=True)
class _Draft:
    """A finding whose test waits for the others: p before correction, and the paired table if there is one.

    ``blind`` is what it becomes where the later run's figure proves nothing and is not worse all the same.
    """

    finding: Finding
    worse: float = 0.0
    p: float | None = None
    table: Paired | None = None
    blind: Finding | None = None


def _drafts(before: Snapshot, now: Snapshot, subject: str, old: str, new: str) -> list[_Draft]:
    if new in now.subjects:
        return [_draft(before, now, subject, figure, now.figure(new, figure.name)) for figure in before.subjects[old]]
    apart = _other_interface(before, now)
    if apart:
        return [_Draft(Finding(subject, CANDIDATE, "", None, None, Change.INCOMPARABLE, reason=apart))]
    rule = before.rules.get(f"{CANDIDATE}[{old}]") or before.rules[CANDIDATE]
    change = Change.MISSING if rule.missing == "regression" else Change.IGNORED
    return [_Draft(Finding(subject, CANDIDATE, "", None, None, change, reason=f"the run has no {old}"))]


def _draft(before: Snapshot, now: Snapshot, subject: str, old: Figure, new: Figure | None) -> _Draft:
    rule = before.rule(old)
    finding = Finding(subject, old.name, rule.unit, old.value, None, Change.SAME, rule.tolerance(old.value))
    apart = _other_interface(before, now)
    if apart:
        return _Draft(replace(finding, change=Change.INCOMPARABLE, reason=apart))
    if new is None:
        change = Change.MISSING if rule.missing == "regression" else Change.IGNORED
        return _Draft(replace(finding, change=change, reason=f"the run has no {old.name}"))
    conditions = before.conditions[old.group], now.conditions[new.group]
    reason = _difference(*conditions) or _blind(before, old)
    if reason and _first_one(old, new, *conditions):
        count = replace(finding, now=new.value, reason=f"{reason}; but a first one counts on any frames")
        return _Draft(count, new.value)
    if reason:
        # No number of the later run: whoever sees two side by side compares them.
        return _Draft(replace(finding, change=Change.INCOMPARABLE, reason=reason))
    higher = rule.better == "higher"
    # At the digits a file keeps, so that a baseline and the run it was made of are the same.
    change_of = rounded(new.value) - rounded(old.value)
    if old.kind == ACTS:
        return _acting(finding, new.value, change_of)
    test, p, table = _test(old, new, higher)
    finding = replace(finding, now=new.value, test=test, reason="" if test else "no sample: the tolerance alone counts")
    lost = Change.MISSING if rule.missing == "regression" else Change.IGNORED
    blind = replace(finding, now=None, change=lost, reason=f"blind in the later run: {_blind(now, new)}")
    return _Draft(finding, -change_of if higher else change_of, p, table, blind if _blind(now, new) else None)


def _first_one(old: Figure, new: Figure, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether there was none before and is one now, on other frames of the same inputs."""
    apart = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    return old.kind in NONE_BEFORE and old.value == 0 < new.value and apart <= set(OF_SAMPLING)


def _acting(finding: Finding, now: float, change: float) -> _Draft:
    """How often the float policy acts: less is worse, and more is neither better nor worse."""
    before = finding.before or 0.0
    blind = now < BLIND_ACTING * before
    words = (
        "blind: the later float policy hardly acts, so whatever agrees with it proves nothing"
        if blind
        else "the float policy's own: the tolerance alone counts"
    )
    return _Draft(replace(finding, now=now, reason=words), -min(change, finding.tolerance or 0.0))


def _settled(drafts: Sequence[_Draft]) -> tuple[Finding, ...]:
    """With the tests corrected for their number, and the figures judged."""
    adjusted = iter(holm([draft.p for draft in drafts if draft.p is not None]))
    alpha = SIGNIFICANCE / max(sum(draft.p is not None for draft in drafts), 1)
    return tuple(_settle(draft, adjusted, alpha) for draft in drafts)


def _settle(draft: _Draft, adjusted: Iterator[float], alpha: float) -> Finding:
    finding = draft.finding
    if finding.now is None:
        return finding
    p = None if draft.p is None else next(adjusted)
    seen = None if draft.table is None else detectable_drop(draft.table, alpha)
    # The last digit of a difference must not decide at the tolerance itself.
    tolerance = (finding.tolerance or 0.0) * (1 + 1e-9) + 1e-12
    unchanged = draft.worse == 0 if draft.table is None else draft.table.losses + draft.table.wins == 0
    if unchanged:
        change = Change.SAME
    elif abs(draft.worse) <= tolerance or (p is not None and p >= SIGNIFICANCE):
        change = Change.NOISE
    else:
        change = Change.WORSE if draft.worse > 0 else Change.BETTER
    if draft.blind is not None and change is not Change.WORSE:
        # Good figures of a run in which even the worst does well are no progress: what they showed before is lost.
        return draft.blind
    return replace(finding, change=change, p=p, detectable=seen)


def _test(old: Figure, new: Figure, higher: bool) -> tuple[str, float | None, Paired | None]:
    """Which test fits the two, its p, and the paired table; all empty where the figure is no sample."""
    if old.bits is not None and new.bits is not None:
        before, now = (old.bits, new.bits) if higher else (~old.bits, ~new.bits)
        table = Paired.of(before, now)
        return f"exact McNemar, {table.losses} : {table.wins}", table.mcnemar(), table
    if old.interval is not None and new.interval is not None and old.n and new.n:
        return "Welch's t", welch(old.value, old.interval, old.n, new.value, new.interval, new.n), None
    if old.n is not None and new.n is not None and old.kind == "agreement":
        return "Fisher's exact", fisher(old.value, old.n, new.value, new.n), None
    return "", None, None


def welch(a: float, a_ends: tuple[float, float], a_n: int, b: float, b_ends: tuple[float, float], b_n: int) -> float:
    """Two-sided p of Welch's test (B. L. Welch, Biometrika 34, 1947) of two means with their 95 % Student intervals.

    The two were driven on the same scenarios, and what is hard for one is hard for the other: their correlation is
    positive, so a test that takes them as independent is conservative.
    """
    from scipy.special import stdtr, stdtrit

    half = np.array([a_ends[1] - a_ends[0], b_ends[1] - b_ends[0]]) / 2
    freedom = np.array([a_n, b_n]) - 1
    variances = (half / stdtrit(freedom, (1 + LEVEL) / 2)) ** 2
    total = float(variances.sum())
    if total == 0:
        return float(a == b)
    degrees = total**2 / float((variances**2 / freedom).sum())
    return float(2 * stdtr(degrees, -abs(b - a) / math.sqrt(total)))


def fisher(a: float, a_n: int, b: float, b_n: int) -> float:
    """Two-sided p of Fisher's exact test of two shares (R. A. Fisher, Statistical Methods for Research Workers, 1934).

    Frames of a drive resemble each other, so p promises less than it says; the tolerance has to be exceeded as well.
    """
    from scipy.special import gammaln

    same = round(a * a_n), round(b * b_n)
    total, all_n = sum(same), a_n + b_n
    x = np.arange(max(0, total - b_n), min(a_n, total) + 1)

    def ways(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    likely = np.exp(ways(a_n, x) + ways(b_n, total - x) - ways(all_n, np.array([total])))
    # Tables that are as likely as the one seen but for the last digits count with it.
    seen = likely[same[0] - x[0]]
    return min(float(likely[likely <= seen * (1 + 1e-7)].sum()), 1.0)


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The first condition in which the two differ, in words; empty if in none."""
    for key in (*before, *(key for key in now if key not in before)):
        old, new = before.get(key, "none"), now.get(key, "none")
        if old != new and key == DRIVE:
            return f"judged on different drives: {_short(old)}, now {_short(new)}"
        if old != new:
            return f"other {key}: {_short(old)}, now {_short(new)}"
    return ""


def _other_interface(before: Snapshot, now: Snapshot) -> str:
    """Why no figure at all is comparable: the policies do not see or answer the same. Empty where they do."""
    return "" if before.interface == now.interface else f"other policy: {before.interface}, now {now.interface}"


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 else value


def _blind(run: Snapshot, figure: Figure) -> str:
    """Why a figure of this run proves nothing; empty where it does."""
    return run.blind.get(FRAMES if figure.kind in ("agreement", "mae") else figure.of, "")


def _changed(before: Snapshot, now: Snapshot) -> Iterator[str]:
    for what in ("policy", "dataset"):
        yield f"{what}: {'the same' if before.hashes.get(what) == now.hashes.get(what) else 'another'}"
    yield f"winner: {before.winner or 'none'}" + (
        "" if before.winner == now.winner else f", now {now.winner or 'none'}"
    )
    tools = [
        f"{name} {before.toolchain.get(name, 'none')}, now {now.toolchain.get(name, 'none')}"
        for name in sorted(before.toolchain.keys() | now.toolchain.keys())
        if before.toolchain.get(name) != now.toolchain.get(name)
    ]
    yield f"toolchain: {'; '.join(tools) or 'the same'}"
    new = [track for track in now.subjects if track not in before.subjects]
    if new:
        yield f"new, with nothing to compare with: {', '.join(new)}"


def _meaning(before: Snapshot, now: Snapshot, findings: Sequence[Finding]) -> Iterator[str]:
    driving = [finding for finding in findings if finding.name.startswith(("success[", "collision["))]
    own = {finding.name: finding for finding in driving if finding.subject == FLOAT}
    boards = [
        name for name in before.conditions if name not in now.conditions and name.split()[0] in get_args(Evidence)
    ]
    if boards and before.interface == now.interface:
        yield (
            f"no figure of {' and '.join(boards)}: run quant device with such a board, or let the rules of the "
            'baseline say "missing": "ignore"'
        )
    if not driving:
        yield "driving was not tested in the earlier of the two: agreement stands in for it, and is a poor proxy"
    for name, original in own.items():
        worse = [one for one in driving if one.name == name and one.regression and one.now is not None]
        if worse:
            yield _cause(original, worse)
    if before.hashes.get("policy") == now.hashes.get("policy") and any(
        finding.change is not Change.SAME and finding.now is not None for finding in own.values()
    ):
        yield (
            "the same float policy drove the same scenarios otherwise than before: the world, the evaluation or the "
            "machine is another"
        )
    for name in [name for name in own if name.startswith("success[")]:
        weak = [one for one in driving if one.name == name and one.judged and not one.regression and _too_weak(one)]
        if weak:
            needed = [one.detectable for one in weak if one.detectable is not None]
            seen = f"only one of {points(max(needed))}" if len(needed) == len(weak) else "none at all"
            yield (
                f"{name}: a drop of the tolerated {points(weak[0].tolerance or 0.0)} could not surely have been seen, "
                f"{seen}: judge on more episodes"
            )


def _too_weak(finding: Finding) -> bool:
    """Whether its test would have missed a drop that is just tolerated, one time in five or more."""
    if finding.now is None or finding.tolerance is None:
        return False
    return finding.detectable is None or finding.detectable > finding.tolerance


def _cause(own: Finding, worse: Sequence[Finding]) -> str:
    """Whose loss it is: the float policy lost at least half as much as the worst candidate, or it did not."""
    loss = max(abs(finding.difference or 0.0) for finding in worse)
    change = own.difference or 0.0
    same_way = change * (worse[0].difference or 0.0) > 0
    whose = "the policy's, not the quantization's" if same_way and abs(change) >= loss / 2 else "the quantization's"
    others = ", ".join(f"{finding.subject} by {points(finding.difference or 0.0)}" for finding in worse)
    return f"{own.name}: the float policy itself changed by {points(change)}, {others}: most of it is {whose}"
