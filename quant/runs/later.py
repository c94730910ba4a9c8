"""A finished run on a drive it has not seen, beside the run: what is found is a document of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quant.acceptance.baseline import Figure, Snapshot
from quant.acceptance.comparison import FRAMES
from quant.acceptance.limits import Limits
from quant.dataset import Recording, read_drive
from quant.dataset.build import held_to_contract
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT, closeness_json, rounded
from quant.evaluation.unseen import OnDrive
from quant.observation.coverage import Coverage, coverage
from quant.observation.findings import Finding
from quant.policy import Policy, policy_digest
from quant.policy.sides import sides_of
from quant.runners import FloatRunner, Int8Runner
from quant.runs.regression import COMPUTED, interface, toolchain_of
from quant.runs.run import Run
from quant.runs.unseen import closeness_on
from quant.tracks.candidate import Candidate

KIND = "quant evaluation on drives"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Later:
    """A run's candidates on a drive.

    Attributes:
        run: the run's name.
        winner: its winner; None where it has none.
        drive: the drive's file name.
        sha256: of that file.
        acts: share of the frames in which the float policy acts.
        known: the drive is one of those the run was made of, so it is no test.
        tracks: by track.
        columns: how far each column was recorded in the drive, is declared and can be represented.
        limit: of the action disagreement.
        findings: what of the drive does not hold to the contract of the policy's input, and may pass.
        snapshot: what `quant compare` holds against another.
    """

    run: str
    winner: str | None
    drive: str
    sha256: str
    acts: float
    known: bool
    tracks: Mapping[str, OnDrive]
    columns: tuple[Coverage, ...]
    limit: float
    findings: tuple[Finding, ...]
    snapshot: Snapshot

    @property
    def failing(self) -> tuple[str, ...]:
        """Tracks that decide otherwise than float in more frames than the limit allows."""
        return tuple(name for name, one in self.tracks.items() if 1 - one.closeness.agreement.value > self.limit)

    @property
    def exit_code(self) -> int:
        """1 where the run's winner, or every track of a run without one, is beyond the limit."""
        judged = self.tracks if self.winner is None else (self.winner,)
        return int(all(name in self.failing for name in judged))

    @property
    def warnings(self) -> Iterator[str]:
        """What a reader must know first."""
        if self.known:
            yield f"{self.drive} is one of the drives the run was made of: this is no test of the unseen"
        if self.acts == 0:
            yield "the float policy never acts in this drive: agreement is blind to a candidate that never brakes"
        yield from (one.warning for one in self.findings)
        for one in self.columns:
            if one.recorded is None or one.column.low is None or one.column.high is None:
                continue
            least, most = one.recorded
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
            "warnings": list(self.warnings),
            "tracks": {name: _json(one) for name, one in self.tracks.items()},
            "coverage": [one.to_json() for one in self.columns],
            "snapshot": self.snapshot.to_json(),
        }


def _json(one: OnDrive) -> dict[str, Any]:
    figures = {"missed_action": one.missed, "false_action": one.false, "saturated": rounded(one.saturated)}
    return closeness_json(one.closeness) | figures


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
    winner = run.verdict(limits).winner
    ends = {name: (one.ego_input.ends, one.peer_input.ends) for name, one in run.candidates.items()}
    return Later(
        run=run.folder.resolve().name,
        winner=winner,
        drive=drive.name,
        sha256=drive.sha256,
        acts=acts,
        known=drive.sha256 in {origin.sha256 for origin in run.dataset.origins},
        tracks=tracks,
        columns=coverage(run.dataset.contract, drive.observations, ends),
        limit=limits.action_disagreement,
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
    group, error = f"agreement on {drive.name}", f"error on {drive.name}"
    same = {"tolerance of the agreement": f"{limits.action_tolerance:g}", "frames": drive.sha256}
    digest = policy_digest(run.policy)

    def figures(one: OnDrive) -> Iterator[Figure]:
        close = one.closeness
        yield Figure("agreement", drive.name, close.agreement.value, COMPUTED, group, close.n)
        yield Figure("mae", drive.name, close.mae, COMPUTED, error, close.n)

    return Snapshot(
        f"{run.folder.resolve().name} on {drive.name}",
        winner or next(iter(tracks)),
        "computed",
        interface(run.policy),
        {"policy": digest, "dataset": drive.sha256, "scenarios": None},
        toolchain_of(run),
        {group: same, error: same | {"policy": digest}},
        {FRAMES: "the float policy never acts in it"} if acts == 0 else {},
        {FLOAT: (), **{name: tuple(figures(one)) for name, one in tracks.items()}},
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
