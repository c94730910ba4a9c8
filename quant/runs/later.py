"""A finished run on a drive it has not seen, beside the run: what is found is a document of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quant.acceptance.baseline import Figure, Snapshot
from quant.acceptance.comparison import ACTS, DRIVE, FRAMES
from quant.acceptance.criterion import quantity
from quant.acceptance.limits import Limits
from quant.dataset import Recording, read_drive
from quant.dataset.build import _check_apart, held_to_contract
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT, closeness_json, rounded
from quant.evaluation.unseen import OnDrive
from quant.observation.coverage import Coverage, Ends, coverage, physical_ends
from quant.observation.findings import Finding
from quant.policy import Policy, policy_digest
from quant.policy.sides import sides_of
from quant.runners import FloatRunner, Int8Runner
from quant.runs.reading import limits_of
from quant.runs.regression import COMPUTED, interface, toolchain_of
from quant.runs.run import Run
from quant.runs.unseen import closeness_on, recordings_of
from quant.tracks.candidate import Candidate

KIND = "quant evaluation on drives"
SCHEMA_VERSION = 2
DRIVEN = "the drive"
"""What figures are of: a drive's hash stands in their conditions, and its name tells nothing."""


@dataclass(frozen=True)
class Later:
    """A run's candidates on a drive.

    Attributes:
        run: the run's name.
        winner: its winner; None where it has none.
        drive: the drive's file name.
        sha256: of that file.
        acts: share of the frames in which the float policy acts.
        known: why the drive is no test, as the run was made of its frames or of some of them; empty where it is one.
        tracks: by track.
        columns: how far each column goes in the drive, is declared and can be represented.
        recorded: by column's name, how far it went in what the run was made of.
        limits: that it is held against.
        findings: what of the drive does not hold to the contract of the policy's input, and may pass.
        snapshot: what `quant compare` holds against another.
    """

    run: str
    winner: str | None
    drive: str
    sha256: str
    acts: float
    known: str
    tracks: Mapping[str, OnDrive]
    columns: tuple[Coverage, ...]
    recorded: Mapping[str, Ends | None]
    limits: Limits
    findings: tuple[Finding, ...]
    snapshot: Snapshot

    @property
    def failing(self) -> Mapping[str, str]:
        """By track that decides otherwise than float more often than the limits allow, what is beyond which limit."""
        found = {name: ", ".join(_beyond(one, self.limits)) for name, one in self.tracks.items()}
        return {name: words for name, words in found.items() if words}

    @property
    def exit_code(self) -> int:
        """1 where the run's winner, or every track of a run without one, is beyond a limit."""
        judged = self.tracks if self.winner is None else (self.winner,)
        return int(all(name in self.failing for name in judged))

    @property
    def outcome(self) -> str:
        """What the exit code says, in one line."""
        failing = "; ".join(f"{name}: {words}" for name, words in self.failing.items())
        if self.exit_code:
            who = (
                "no track of a run without winner holds" if self.winner is None else f"{self.winner}, the winner, fails"
            )
            return f"{who} on {self.drive}: {failing}"
        held = "a track holds" if self.winner is None else f"{self.winner}, the winner, holds"
        return f"{held} on {self.drive}" + (f"; beyond a limit, {failing}" if failing else "")

    @property
    def warnings(self) -> Iterator[str]:
        """What a reader must know first."""
        if self.known:
            yield f"{self.drive} is known to the run ({self.known}): this is no test of the unseen"
        if self.acts == 0:
            yield "the float policy never acts in this drive: agreement is blind to a candidate that never brakes"
        yield from (one.warning for one in self.findings)
        for one in self.columns:
            if one.recorded is None or one.column.low is None or one.column.high is None:
                continue
            least, most = one.recorded
            before = self.recorded.get(one.name)
            if before is not None and (least < before[0] or most > before[1]):
                seen, own = physical_ends(one.column, (least, most)), physical_ends(one.column, before)
                yield f"{one.name} goes from {seen} in this drive; what the run was made of from {own}"
            if least < one.column.low - 1e-6 or most > one.column.high + 1e-6:
                ends = f"{one.column.physical(one.column.low)} to {one.column.physical(one.column.high)}"
                seen = f"{one.column.physical(least)} to {one.column.physical(most)}"
                yield f"{one.name} goes from {seen} in this drive; the run is trusted for {ends} alone"

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "winner": self.winner,
            "drive": self.drive,
            "sha256": self.sha256,
            "float_acts": rounded(self.acts),
            "known": self.known or None,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "warnings": list(self.warnings),
            "tracks": {name: _json(one) for name, one in self.tracks.items()},
            "coverage": [_column_json(one, self.recorded.get(one.name)) for one in self.columns],
            "snapshot": self.snapshot.to_json(),
        }


def _json(one: OnDrive) -> dict[str, Any]:
    figures = {"missed_action": one.missed, "false_action": one.false, "saturated": rounded(one.saturated)}
    return closeness_json(one.closeness) | figures


def _column_json(one: Coverage, before: Ends | None) -> dict[str, Any]:
    """With ``recorded`` of what the run was made of, as elsewhere, and the drive's own ends beside it."""
    own = one.to_json()
    return own | {
        "recorded": None if before is None else [round(end, 6) for end in before],
        "in_drive": own["recorded"],
    }


def _beyond(one: OnDrive, limits: Limits) -> Iterator[str]:
    disagreeing = 1 - one.closeness.agreement.value
    if disagreeing > limits.action_disagreement:
        allowed = quantity(limits.action_disagreement, "share")
        yield f"another action than float in {quantity(disagreeing, 'share')} of the frames, limit {allowed}"
    for what, count, allowed_count in (
        ("missed", one.missed, limits.missed_action),
        ("false", one.false, limits.false_action),
    ):
        if count > allowed_count:
            yield f"{count} {what} actions, limit {allowed_count}"


def _known(run: Run, drive: Recording) -> str:
    """By the check that keeps a run's own recordings apart: a cut or a copy of one is no test either."""
    for own in recordings_of(run.dataset):
        try:
            _check_apart([own, drive])
        except InputError as error:
            return "the same recording" if own.sha256 == drive.sha256 else error.what
    return ""


def judge(run: Run, path: Path, limits: Limits) -> Later:
    """A run's float policy and candidates on every frame of a drive.

    Args:
        run: finished.
        path: the drive.
        limits: the tolerance of the agreement, and how much disagreement is allowed.

    Raises:
        InputError: the drive cannot be read, does not fit the policy or does not hold to its contract.
    """
    allow = run.settings.allow
    drive = read_drive(path, run.policy, allow)
    contract = run.dataset.contract
    findings = held_to_contract(run.policy, [drive], run.dataset.given, allow, known=contract)
    tracks = {name: _on(run.policy, one, drive, limits) for name, one in run.candidates.items()}
    values = FloatRunner(run.policy).values(drive.observations)
    acts = float(sides_of(run.policy.action_space, values).acts.any(axis=1).mean())
    # Its own, whatever limits this drive is held against.
    winner = run.verdict(limits_of(run.folder)).winner
    ends = {name: (one.ego_input.ends, one.peer_input.ends) for name, one in run.candidates.items()}
    return Later(
        run=run.folder.resolve().name,
        winner=winner,
        drive=drive.name,
        sha256=drive.sha256,
        acts=acts,
        known=_known(run, drive),
        tracks=tracks,
        columns=coverage(run.dataset.contract, drive.observations, ends),
        recorded={one.name: one.recorded for one in run.coverage},
        limits=limits,
        findings=findings,
        snapshot=_snapshot(run, winner, drive, tracks, acts, limits),
    )


def _on(policy: Policy, candidate: Candidate, drive: Recording, limits: Limits) -> OnDrive:
    frames, space = drive.observations, policy.action_space
    own, theirs = (
        sides_of(space, values) for values in (FloatRunner(policy).values(frames), Int8Runner(candidate).values(frames))
    )
    (ego_low, ego_high), (low, high) = candidate.ego_input.ends, candidate.peer_input.ends
    beyond = ((frames.ego < ego_low) | (frames.ego > ego_high)).any(axis=1)
    beyond |= (((frames.peers < low) | (frames.peers > high)).any(axis=2) & frames.mask).any(axis=1)
    missed, false = own.apart(theirs)
    return OnDrive(
        closeness_on(policy, candidate, frames, limits.action_tolerance),
        int(missed.any(axis=1).sum()),
        int(false.any(axis=1).sum()),
        float(np.mean(beyond)),
    )


def _snapshot(
    run: Run, winner: str | None, drive: Recording, tracks: Mapping[str, OnDrive], acts: float, limits: Limits
) -> Snapshot:
    """As of a whole run, with this drive's frames in place of held-out ones."""
    group, error = f"agreement on {DRIVEN}", f"error on {DRIVEN}"
    same = {DRIVE: drive.sha256, "tolerance of the agreement": f"{limits.action_tolerance:g}"}
    digest = policy_digest(run.policy)

    def figures(one: OnDrive) -> Iterator[Figure]:
        close = one.closeness
        yield Figure("agreement", DRIVEN, close.agreement.value, COMPUTED, group, close.n)
        yield Figure("mae", DRIVEN, close.mae, COMPUTED, error, close.n)
        yield Figure("missed_action", DRIVEN, one.missed, COMPUTED, group)
        yield Figure("false_action", DRIVEN, one.false, COMPUTED, group)
        yield Figure("saturated", DRIVEN, one.saturated, COMPUTED, group)

    return Snapshot(
        f"{run.folder.resolve().name} on {drive.name}",
        winner or next(iter(tracks)),
        "computed",
        interface(run.policy),
        {"policy": digest, "dataset": drive.sha256, "scenarios": None},
        toolchain_of(run),
        {group: same, error: same | {"policy": digest}},
        {FRAMES: "the float policy never acts in it"} if acts == 0 else {},
        {
            FLOAT: (Figure(ACTS, DRIVEN, acts, COMPUTED, group, len(drive.observations)),),
            **{name: tuple(figures(one)) for name, one in tracks.items()},
        },
    )


def beside(run: Path, drive: Path) -> Path:
    """Where the document goes where nobody says: beside the run's folder."""
    folder = run.resolve()
    return folder.parent / f"{folder.name}-on-{drive.stem}.json"


def check_outside(output: Path, run: Path) -> None:
    """Sees that the run itself is left as it is.

    Raises:
        InputError: the file would lie in the run.
    """
    if run.resolve() in output.resolve().parents:
        raise InputError(
            "lies in the run, which this leaves as it is",
            where=output,
            expected="a file beside it",
            hint=f"the default is {beside(run, Path('DRIVE'))}",
        )
