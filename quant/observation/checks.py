"""Recordings, rollouts and worlds held against the contract of the policy's input.

Nothing here says that numbers look odd. Either a value is beyond a bound that somebody stated, or a relation between
columns does not hold that would hold, to the last digit or nearly, if one thing were undone: a factor, a sign, a swap,
a delay. So a strange drive is left in peace, and what is said names its cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quant.observation.contract import Column, Contract
from quant.observation.findings import Finding
from quant.observation.functions import AGE
from quant.observation.hypotheses import Hypothesis, describe, hypotheses, orders, unusual
from quant.observation.observations import F32, Mask
from quant.observation.relations import (
    F64,
    HEADINGS,
    LEAST,
    STEPS,
    TIME,
    Frames,
    Ref,
    Relation,
    alike,
    bounds_kept,
    columns_of,
    computed,
    copy_score,
    excess,
    relations_of,
    stated,
    usual_step,
)
from quant.observation.resolve import Bounds, Series

SURE = ("stated", "exact")
"""Grades of relations that decide; the others are tendencies and what is usual."""
MOST_CAUSES = 6
"""Things done to one recording that are told apart."""
PRESET_ROOM, IMPOSSIBLE = 0.1, 10.0
"""How far beyond a preset's bounds, as a share of what lies between them, is told; and what no vehicle can be."""
AGEING, LEAST_AGEING, NO_AGE_MS = 0.08, 200, 2.0
"""Share of the steps in which a peer's age changes by just the time between frames, of so many ages that moved."""
UNEXPLAINED = 0.9
"""An exact relation that holds in fewer frames is spoken of without a cause, too."""


def findings(series: Series, contract: Contract, where: str, *, explained: bool = False) -> tuple[Finding, ...]:
    """What of a recorded drive does not hold to the contract.

    Args:
        series: the drive.
        contract: as resolved, bounds unknown where nobody stated them.
        where: the drive's name.
        explained: only what a cause explains, for a contract that is no more than an assumption.
    """
    if len(series.observations) == 0:
        return ()
    frames = Frames.of(series)
    if not explained and (turned := _backwards(contract, frames, where)):
        return tuple(turned)
    relations = relations_of(contract, frames)
    found: list[Finding] = []
    missing = _frames_missing(contract, frames)
    if missing:
        found.append(_missing_finding(contract, missing, where))
        relations = [one for one in relations if not _is_copy(contract, one)]
    for _ in range(MOST_CAUSES):
        scores = {one: one.score(frames) for one in relations}
        failing = _failing(scores)
        best = _best(contract, frames, scores, failing, explained=explained)
        if best is None or (explained and not _is_sure(best)):
            break
        found.append(_explained(contract, frames, where, best, scores))
        frames = best.hypothesis.undo(frames)
    if not explained:
        scores = {one: one.score(frames) for one in relations}
        left = {one: scores[one] for one in _failing(scores)}
        found += _unexplained(contract, series, frames, where, left, bool(found))
    return tuple(found)


def _failing(scores: Mapping[Relation, float | None]) -> list[Relation]:
    """Relations that do not hold; not what is only unusual, where the motion shows that the units are right."""
    failing = [one for one, score in scores.items() if score is not None and score < one.fails]
    if any(one.grade in SURE for one in failing):
        return failing
    moving = [one for one, score in scores.items() if one.scales and score is not None and score >= one.fits]
    right = {ref for one in moving for ref in one.columns}
    return [one for one in failing if one.grade != "usual" or one.columns[0] not in right]


def bound_findings(series: Series, contract: Contract, where: str) -> tuple[Finding, ...]:
    """What of a world's rollouts is beyond bounds that the checkpoint or the user stated."""
    found = []
    for ref, column in columns_of(contract):
        values = _all_values(series, ref)
        if stated(column) and len(values) and bounds_kept(values, column, True) < 1:
            found.append(_beyond(contract, ref, column, values, where))
    return tuple(found)


LEAST_GAIN = 0.002
"""By how much an exact relation has to hold more often."""
BETTER = 20.0
"""What it weighs that relations hold in all frames and not in most, against what is usual."""


def world_findings(contract: Contract, space: Bounds | None, where: str) -> tuple[Finding, ...]:
    """Where a world's own observation space goes well beyond bounds that the checkpoint or the user stated.

    Args:
        contract: of the policy's input.
        space: the world's bounds, infinite where it has none; None where it says nothing.
        where: the world's specification.
    """
    if space is None:
        return ()
    ends = {
        "ego": list(zip(space.ego_low, space.ego_high, strict=True)),
        "peers": list(zip(space.peers_low, space.peers_high, strict=True)),
    }
    found = []
    for ref, column in columns_of(contract):
        finite = np.array([end for end in ends[ref[0]][ref[1]] if math.isfinite(end)], np.float64)
        if stated(column) and len(finite) and excess(finite, column).max() > 0.1:
            wide, right = _extreme(column, finite)
            what = f"its observation space {wide.split(', beyond')[0]}"
            found.append(Finding("world-bounds", False, where, describe(contract, [ref]), (ref[1],), what, right))
    return tuple(found)


@dataclass(frozen=True)
class _Explanation:
    hypothesis: Hypothesis
    fixed: tuple[Relation, ...]
    broken: int
    scores: Mapping[Relation, float | None]


def _best(
    contract: Contract,
    frames: Frames,
    scores: Mapping[Relation, float | None],
    failing: Sequence[Relation],
    *,
    explained: bool,
) -> _Explanation | None:
    """The one thing that, undone, mends most and breaks nothing; of equal ones the more usual."""
    touched = list(dict.fromkeys(ref for one in failing for ref in one.columns))
    found: list[tuple[float, float, _Explanation]] = []
    for hypothesis in hypotheses(contract, frames, touched):
        tried = _tried(contract, hypothesis, frames, scores)
        if tried is None or (explained and hypothesis.by_contract):
            continue
        undone = hypothesis.undo(frames)
        cost = unusual(contract, undone, hypothesis.columns)
        soft = all(one.grade == "soft" for one in tried.fixed)
        if soft and hypothesis.name.endswith("-scaled") and cost > unusual(contract, frames, hypothesis.columns) + 0.1:
            continue  # a factor that makes a column stranger than it was
        after = [tried.scores[one] or 0.0 for one in tried.fixed]
        better = (1.0 if soft else BETTER) * sum(after) / len(after)
        found.append((len(tried.fixed) - 0.5 * tried.broken, better - hypothesis.unlikely - cost, tried))
    if not found:
        return None
    most, cost, best = max(found, key=lambda one: one[:2])
    alike = [one for fixed, rank, one in found if fixed == most and _is_other(best, one) and rank > cost - 0.25]
    return replace(best, hypothesis=_either(contract, best.hypothesis, [one.hypothesis for one in alike]))


def _is_sure(best: _Explanation) -> bool:
    """Whether more than tendencies and what is usual says so."""
    return any(one.grade in SURE for one in best.fixed)


def _is_other(best: _Explanation, other: _Explanation) -> bool:
    """The same thing done to another column, which would explain just as much."""
    one, two = best.hypothesis, other.hypothesis
    single = len(one.columns) == len(two.columns) == 1
    same = (one.name == two.name == "sign-flipped") and best.fixed == other.fixed
    return single and same and one.columns != two.columns


def _either(contract: Contract, best: Hypothesis, others: Sequence[Hypothesis]) -> Hypothesis:
    """What was done, where it may as well have been done to another column."""
    if not others:
        return best
    names = describe(contract, [ref for one in others for ref in one.columns])
    subject = tuple(dict.fromkeys(ref for one in (best, *others) for ref in one.columns))
    return replace(best, cause=f"{best.cause}, or that of {names}", subject=subject)


def _tried(
    contract: Contract, hypothesis: Hypothesis, frames: Frames, scores: Mapping[Relation, float | None]
) -> _Explanation | None:
    columns = set(hypothesis.columns)
    affected = [one for one in scores if columns & set(one.columns)]
    if hypothesis.name == "column-late":
        affected = [one for one in affected if one.dates]
    failing = [one for one in affected if (score := scores[one]) is not None and score < one.fails]
    if not failing:
        return None
    undone = hypothesis.undo(frames)
    after = {one: one.score(undone) for one in failing}
    fixed = tuple(one for one in failing if _mended(one, scores[one], after[one]))
    if not fixed or (hypothesis.by_columns and all(one.grade != "soft" for one in fixed)):
        return None
    only_usual = hypothesis.name == "column-offset" and all(one.grade == "usual" for one in fixed)
    ref = hypothesis.columns[0]
    intrinsic = only_usual and _column(contract, ref).name in (*HEADINGS, AGE)
    below = only_usual and _column(contract, ref).low == 0 and bool((frames.values(ref) < 0).any())
    if only_usual and not (intrinsic or below):
        return None  # something may be taken from what cannot be below 0; who knows what is added to the rest
    broken = 0
    for one in affected:
        if one in failing:
            continue
        before, now = scores[one], one.score(undone)
        after[one] = now
        if (
            before is None
            or (now is None and one.grade != "exact")
            or (now is not None and now >= min(one.fails, before))
        ):
            continue
        # What is known to the last digit weighs more than a tendency.
        if one.grade != "soft" or TIME in columns or not any(other.grade in SURE for other in fixed):
            return None
        broken += 1
    return _Explanation(hypothesis, fixed, broken, after)


def _mended(relation: Relation, before: float | None, now: float | None) -> bool:
    if before is None or now is None:
        return False
    much = (1.0 - now) <= 0.2 * (1.0 - before)
    if relation.grade in ("stated", "usual"):
        return now >= relation.fits
    if relation.grade == "exact":
        return now - before >= LEAST_GAIN and (now >= relation.fits or (much and now >= UNEXPLAINED))
    return (now >= relation.fits and (now - before >= 0.25 or much)) or (
        much and now - before >= 0.1 and now >= UNEXPLAINED
    )


def _explained(
    contract: Contract,
    frames: Frames,
    where: str,
    best: _Explanation,
    scores: Mapping[Relation, float | None],
) -> Finding:
    hypothesis, fixed = best.hypothesis, best.fixed
    refs = hypothesis.subject or hypothesis.columns
    certain = _is_sure(best)
    first = max(fixed, key=lambda one: (one.grade == "stated", one.grade == "exact", one.grade == "usual"))
    if first.grade in ("stated", "usual"):
        ref = first.columns[0]
        found, expected = _extreme(_column(contract, ref), frames.values(ref))
        if ref not in refs or len(refs) > 1:
            found = f"{describe(contract, [ref])} {found}"
    else:
        now, then = scores[first], best.scores[first]
        what = (
            "" if first.columns[0] in refs and len(refs) == 1 else f"{describe(contract, first.columns[:1]) or 't_ms'} "
        )
        found = f"{what}{first.name} holds in {_percent(now)} of the frames that tell"
        expected = f"{_percent(then)}, as it is with that undone"
    named = "" if len(refs) > 2 else describe(contract, refs)
    if hypothesis.subject is not None:
        named = named.replace(" and ", " or ")
    cause = hypothesis.cause
    ratio = _kept(contract, frames) if hypothesis.columns == (TIME,) else None
    if ratio is not None and all(one.grade != "soft" for one in fixed):  # the ages do not tell
        cause += f", or one frame in {ratio} was kept and those between are missing"
    indices = tuple(ref[1] for ref in refs if ref[0] in ("ego", "peers"))
    return Finding(hypothesis.name, certain, where, named, indices, found, expected, cause)


def _kept(contract: Contract, frames: Frames) -> int | None:
    """One frame in how many was kept, if times are right."""
    mean = None if frames.t is None else usual_step(frames.t)
    if mean is None or contract.period_ms is None or mean < STEPS[1] * contract.period_ms:
        return None
    return max(round(mean / contract.period_ms), 2)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.3g} %"


def _column(contract: Contract, ref: Ref) -> Column:
    return (contract.ego if ref[0] == "ego" else contract.peers)[ref[1]]


def _extreme(column: Column, values: F64) -> tuple[str, str]:
    """The value furthest beyond the bounds with the share of frames, and the bounds."""
    beyond = excess(values, column)
    value = float(values[np.argmax(beyond)])
    share = float((beyond > 1e-3).mean())
    units = f" ({column.physical(value)})" if column.scale is not None else ""
    low, high = (None if end is None else column.physical(end) for end in (column.low, column.high))
    ends = (
        f"{'' if column.low is None else f'{column.low:.4g}'} to {'' if column.high is None else f'{column.high:.4g}'}"
    )
    physical = f" ({low or ''} to {high or ''})" if column.scale is not None else ""
    return f"goes to {value:.4g}{units}, beyond its bounds in {_percent(share)} of its values", f"{ends}{physical}"


def _all_values(series: Series, ref: Ref) -> F64:
    seen = series.observations
    values = seen.ego[:, ref[1]] if ref[0] == "ego" else seen.peers[:, :, ref[1]][seen.mask]
    return values.astype(np.float64)


def _beyond(contract: Contract, ref: Ref, column: Column, values: F64, where: str) -> Finding:
    beyond = excess(values, column)
    certain = stated(column) and bool((beyond > 1e-3).mean() >= 0.01 or beyond.max() > 0.5)
    found, expected = _extreme(column, values)
    return Finding("out-of-bounds", certain, where, describe(contract, [ref]), (ref[1],), found, expected)


def _unexplained(
    contract: Contract,
    series: Series,
    frames: Frames,
    where: str,
    scores: Mapping[Relation, float | None],
    told: bool,
) -> list[Finding]:
    """What fails without a cause that explains it: bounds always, the rest where it clearly does."""
    found: list[Finding] = []
    for relation, score in scores.items():
        if score is None or score >= relation.fails:
            continue
        ref = relation.columns[0]
        # Usual bounds give way to recordings, but no angle goes further than around.
        hard = relation.grade == "usual" and _column(contract, ref).name in (*HEADINGS, AGE)
        if relation.grade == "stated" or hard:
            found.append(_beyond(contract, ref, _column(contract, ref), frames.values(ref), where))
        elif relation.grade == "exact" and ref == TIME:
            found.append(_step(contract, frames, where))
        elif relation.grade == "exact" and score < UNEXPLAINED:
            found.append(_mismatch(contract, frames, where, relation, score))
    found += _beyond_in_rest(contract, series, frames, where) if not told else []
    found += _beyond_preset(contract, series, where, found) if not told else []
    return _copies_together(contract, frames, found)


def _beyond_in_rest(contract: Contract, series: Series, frames: Frames, where: str) -> list[Finding]:
    """Bounds in the frames of a long drive that relations were not looked for in."""
    if len(frames.ego) == len(series.observations):
        return []
    return [
        _beyond(contract, ref, column, values, where)
        for ref, column in columns_of(contract)
        if stated(column)
        and bounds_kept(frames.values(ref), column, True) == 1
        and len(values := _all_values(series, ref))
        and bounds_kept(values, column, True) < 1
    ]


def _beyond_preset(contract: Contract, series: Series, where: str, told: Sequence[Finding]) -> list[Finding]:
    """Values beyond bounds that only a preset has: recordings may go further, but the range grows with them."""
    known = {(one.column, one.indices) for one in told}
    found = []
    for ref, column in columns_of(contract):
        values = _all_values(series, ref)
        if not contract.preset or stated(column) or not len(values):
            continue
        one = _beyond(contract, ref, column, values, where)
        most = float(excess(values, column).max())
        if most > PRESET_ROOM and (one.column, one.indices) not in known:
            found.append(replace(one, certain=most > IMPOSSIBLE))
    return found


def _backwards(contract: Contract, frames: Frames, where: str) -> list[Finding]:
    """Peers that grow younger by the time between frames, where they grow older between two messages of a peer."""
    age = next((i for i, one in enumerate(contract.peers) if one.name == AGE and one.scale is not None), None)
    if age is None or frames.t is None:
        return []
    rows, slots = frames.pairs
    ages = frames.peers[:, :, age] * float(contract.peers[age].scale or 1.0)
    change = ages[rows, slots] - ages[rows - 1, slots]
    steps = np.diff(frames.t)
    moved = np.abs(change) > NO_AGE_MS

    def share(step: F64) -> float:
        return float((np.abs(change - step[rows - 1]) < NO_AGE_MS)[moved].mean())

    if moved.sum() < LEAST_AGEING or ages[frames.mask].min() < 0:
        return []
    # Times may have been turned round with the rows or not.
    forwards, backwards = share(steps), max(share(-steps), share(-steps[::-1]))
    if backwards < AGEING or backwards < 2 * forwards:
        return []
    found = f"peers grow younger with the times in {_percent(backwards)} of the steps, older in {_percent(forwards)}"
    return [Finding("frame-order", True, where, "", (), found, "older, until a message comes", "frames run backwards")]


def _mismatch(contract: Contract, frames: Frames, where: str, relation: Relation, score: float) -> Finding:
    ref = relation.columns[0]
    column = contract.ego[ref[1]]
    found = f"{relation.name} holds in {_percent(score)} of the frames that tell"
    if column.copy_of is not None:
        cause = _what_it_is(contract, frames, ref[1])
        expected = f"{describe(contract, [('ego', column.copy_of)])} one frame before"
        return Finding("copy-mismatch", True, where, describe(contract, [ref]), (ref[1],), found, expected, cause)
    cause = _what_it_is(contract, frames, ref[1])
    return Finding(
        "function-mismatch", bool(cause), where, describe(contract, [ref]), (ref[1],), found, relation.name, cause
    )


def _what_it_is(contract: Contract, frames: Frames, index: int) -> str:
    """What a column does equal, where that is something known."""
    own = frames.ego[:, index]
    others = {
        f"the {name}": computed(frames, name, contract) for name in (one.name for one in contract.functions.values())
    }
    others |= {describe(contract, [("ego", i)]): frames.ego[:, i] for i in range(len(contract.ego)) if i != index}
    for name, values in others.items():
        telling = (np.abs(own) > 1e-4) | (np.abs(values) > 1e-4)
        if telling.sum() < LEAST or np.ptp(values) == 0:
            continue
        if alike(own, values)[telling].mean() > UNEXPLAINED:
            return f"it equals {name}"
        both = (np.abs(own) > 1e-4) & (np.abs(values) > 1e-4)
        if both.sum() >= LEAST:
            factor = float(np.median(own[both] / values[both]))
            if alike(own, factor * values)[telling].mean() > UNEXPLAINED and np.ptp(own[both]) > 0:
                return f"it is {factor:.4g} times {name}"
    return ""


def _step(contract: Contract, frames: Frames, where: str) -> Finding:
    """Frames are not as far apart as decisions, and no unit of the times explains it."""
    assert frames.t is not None and contract.period_ms is not None
    mean = usual_step(frames.t)
    assert mean is not None
    ratio = mean / contract.period_ms
    if ratio > STEPS[1]:
        done = f"frames are missing between them (about one in {max(round(ratio), 2)} was kept)"
    else:
        done = "it was recorded faster than the policy decides"
    cause = f"{done}, or t_ms is {ratio:.3g} times the milliseconds"
    return Finding(
        "time-step",
        not 0.15 < ratio < 5,
        where,
        "t_ms",
        (),
        f"a frame each {mean:.4g} ms",
        f"{contract.period_ms:g} ms, the policy's period",
        cause,
    )


def _is_copy(contract: Contract, relation: Relation) -> bool:
    kind, index = relation.columns[0]
    return kind == "ego" and relation.grade == "exact" and contract.ego[index].copy_of is not None


def _frames_missing(contract: Contract, frames: Frames) -> int | None:
    """One frame in how many was kept, where the frame before holds what should stand several frames before."""
    place = contract.places
    copies = [(i, column.copy_of) for i, column in enumerate(contract.ego) if column.copy_of is not None]
    for order in orders(contract):
        scores_then = [copy_score(i, source)(order.undo(frames)) for i, source in copies]
        if np.mean([one is None or one > UNEXPLAINED for one in scores_then]) > 0.75:
            return None
    for every in range(2, contract.depth):
        at = [place[source, every] for source in sorted(set(contract.sources)) if (source, every) in place]
        scores = {
            step: [copy_score(i, place[contract.sources[i], every - step])(frames) for i in at] for step in (1, every)
        }
        shares = {
            step: float(np.median([one for one in values if one is not None] or [0.0]))
            for step, values in scores.items()
        }
        if shares[every] > UNEXPLAINED and shares[1] < UNEXPLAINED:
            return every
    return None


def _missing_finding(contract: Contract, every: int, where: str) -> Finding:
    older = tuple(i for i, column in enumerate(contract.ego) if column.copy_of is not None)
    return Finding(
        "copy-mismatch",
        True,
        where,
        "",
        older,
        f"what the stack's frame {every} steps back holds is in the frame just before",
        f"in the one {every} before",
        f"frames are missing between them: one in {every} was kept",
    )


def _copies_together(contract: Contract, frames: Frames, found: list[Finding]) -> list[Finding]:
    """Where all copies fail alike one finding says so: frames are missing, or the stack is no such stack."""
    copies = [one for one in found if one.name == "copy-mismatch"]
    stacked = sum(column.copy_of is not None for column in contract.ego)
    if len(copies) < 2 or len(copies) < stacked // 2:
        return found
    known = {column.origin("copy_of") for column in contract.ego if column.copy_of is not None}
    first = copies[0]
    cause = "frames are missing between them, or the stack was made at another period or in another way"
    one = replace(
        first,
        certain=bool(known - {"preset"}),
        column="",
        indices=tuple(index for one in copies for index in one.indices),
        found=f"{len(copies)} of {stacked} columns of older frames are not what frames before hold ({first.found})",
        expected="copies, one step older each",
        cause=cause,
    )
    return [*(other for other in found if other.name != "copy-mismatch"), one]


# What stands in the file, before absent peers are cleared


def mask_findings(peers: F32, mask: Mask, where: str) -> tuple[Finding, ...]:
    """A mask that marks other slots than the filled ones, and columns that what absent slots hold shows to be off.

    Args:
        peers: (N, P, F) as they stand in the file.
        mask: (N, P).
        where: the file's name.
    """
    filled = (peers != 0).any(axis=2)
    present, hollow = int(mask.sum()), int((mask & ~filled).sum())
    if hollow and len(mask) >= 2 * LEAST:
        cause = _mask_cause(mask, filled)
        if cause is not None or hollow > max(HOLLOW * present, LEAST):
            return (_mask_finding(mask, filled, hollow / present, where, cause),)
    return _lone_columns(peers, mask, where)


HOLLOW = 0.02
"""Share of the peers marked present that may be all zeros."""


def _mask_finding(mask: Mask, filled: Mask, share: float, where: str, cause: tuple[str, str] | None) -> Finding:
    spare = float((filled & ~mask).sum() / max(int((~mask).sum()), 1))
    empty, filled_in = _percent(share), _percent(spare)
    found = f"{empty} of the peers marked present are all zeros, {filled_in} of those marked absent are filled"
    name, words = cause or ("mask-misplaced", "")
    certain = cause is not None or (share > UNEXPLAINED and spare > UNEXPLAINED)
    return Finding(name, certain, where, "peer_mask", (), found, "1 where a peer is present, 0 where none is", words)


def _mask_cause(mask: Mask, filled: Mask) -> tuple[str, str] | None:
    """The mask that the filled slots are of, where another one explains nearly all that does not fit."""
    wrong = float((mask != filled).mean())

    def fits(other: Mask) -> bool:
        return float((other != filled).mean()) <= 0.2 * wrong

    if mask.all():
        return ("mask-misplaced", "the mask is all ones") if filled.any() else None
    if fits(~mask):
        return "mask-inverted", "the mask is inverted"
    for shift in range(1, mask.shape[1] // 2 + 1):
        for step in (shift, -shift):
            if fits(np.roll(mask, -step, axis=1)):
                slots = f"{abs(step)} slot{'s'[: abs(step) > 1]}"
                return "mask-misplaced", f"the mask is shifted by {slots} {'up' if step > 0 else 'down'}"
    for late in (*range(1, 51), *range(-1, -51, -1)):
        if fits(np.roll(mask, -late, axis=0)):
            frames = f"{abs(late)} frame{'s'[: abs(late) > 1]}"
            return "mask-misplaced", f"the mask is {frames} {'late' if late > 0 else 'early'}"
    return None


def _lone_columns(peers: F32, mask: Mask, where: str) -> tuple[Finding, ...]:
    """Absent slots that are zero but for one column, where that column is late or has something added."""
    absent = ~mask
    if peers.shape[2] < 2 or min(absent.sum(), mask.sum()) < LEAST:
        return ()
    used = (peers[absent] != 0).any(axis=0)
    if used.sum() != 1:
        return ()
    index = int(np.flatnonzero(used)[0])
    column = peers[:, :, index]
    values = column[absent]
    label, place = f"peers' column {index}", (index,)
    if np.ptp(values) == 0:
        own = column[mask]
        # Some write the greatest age or distance where there is none; then peers present stay below it.
        if own.min() < values[0] and own.max() <= values[0]:
            return ()
        found = f"slots without a peer hold {values[0]:.4g} in this column, zeros in all others"
        return (
            Finding(
                "column-offset", False, where, label, place, found, "zeros", f"{values[0]:+.4g} is added to the column"
            ),
        )
    filled = column != 0
    for late in (*range(1, 51), *range(-1, -51, -1)):
        moved = np.roll(mask, late, axis=0)
        if not (filled & ~moved).any() and (filled & mask).any():
            found = f"slots hold it {abs(late)} frames after a peer has gone, and zeros when it comes"
            cause = f"the column is {abs(late)} frame{'s'[: abs(late) > 1]} {'late' if late > 0 else 'early'}"
            return (Finding("column-late", True, where, label, place, found, "values where a peer is present", cause),)
    return ()


# Times


def time_findings(t_ms: NDArray[np.float64], where: str) -> tuple[Finding, ...]:
    """Times that do not increase."""
    steps = np.diff(t_ms)
    wrong = ~(steps > 0)  # not "<=": a time that is not a number increases nowhere
    if not wrong.any():
        return ()
    row, back = int(np.argmax(wrong)) + 1, int((steps < 0).sum())
    cause = ""
    if back == len(steps):
        cause = "the frames are in reverse order"
    elif back:
        cause = "two drives are joined, or the clock was set back"
    elif wrong.mean() > 0.1 and (steps[~wrong] >= 1).all():
        cause = "times were rounded: seconds or coarser ticks under t_ms"
    found = f"time does not increase at frame {row}, in {int(wrong.sum())} of {len(steps)} steps"
    return (Finding("time-order", True, where, "t_ms", (), found, "increasing times", cause),)
