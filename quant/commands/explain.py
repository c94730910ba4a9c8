"""`quant explain`: why a candidate of a run errs, and what to try."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant.commands.completion import complete_tracks_of_run
from quant.commands.console import show, show_json
from quant.commands.options import json_option, run_argument
from quant.errors import InputError, StaleError, did_you_mean
from quant.tracks.registry import TRACKS

if TYPE_CHECKING:
    from quant.anatomy import Anatomy
    from quant.dataset import Dataset
    from quant.observation.observations import Observations
    from quant.policy import Policy
    from quant.tracks.candidate import Candidate


@click.command("explain")
@run_argument
@click.option(
    "--track", shell_complete=complete_tracks_of_run, help="Only this candidate.  [default: all of the run's]"
)
@click.option(
    "--worst", type=click.IntRange(0), default=5, show_default=True, help="How many of the worst frames to list."
)
@click.option("--stress", is_flag=True, help="On the frames that the stress test kept, instead of the held-out ones.")
@json_option
def explain_command(run: Path, track: str | None, worst: int, stress: bool, as_json: bool) -> None:
    """Says why a candidate errs, and what to try.

    Takes the error of the candidates' decisions on the held-out frames apart: what each rounding of inputs, weights and
    activations costs alone and what making it exact would gain, by number of peers and origin, with the worst frames.
    Input features that are cut off come first where they are the cause, with what to record or to declare.
    Needs the dataset and a candidate; nothing is written into the run.
    """
    anatomies = explain(run, track, worst, stress=stress)
    from quant.anatomy import advise, contrast
    from quant.report.explanation import contrasts, explanation
    from quant.runs.folder import MANIFEST
    from quant.runs.reading import read_inputs

    sentences = [line for other in anatomies[1:] for line in contrast(anatomies[0], other)]
    if as_json:
        show_json(_document(anatomies, sentences))
        return
    policy, dataset = read_inputs(run)
    for anatomy in anatomies:
        show(explanation(anatomy, advise(anatomy), policy.action_space, dataset.contract))
        click.echo()
    if sentences:
        show(contrasts(sentences))
    if (run / MANIFEST).is_file():
        click.echo(f"\nwith pictures: quant report {shlex.quote(str(run))}")


def explain(folder: Path, track: str | None = None, worst: int = 5, *, stress: bool = False) -> list[Anatomy]:
    """The anatomies of a run's candidates, in the run's order.

    Args:
        folder: a run with a dataset and a candidate, finished or not.
        track: only this candidate.
        worst: how many of the worst frames to list.
        stress: on the frames that a stress test kept, of all its candidates, instead of the held-out ones.

    Raises:
        InputError: there is no such candidate, nobody stressed the run, or a file is malformed.
        StaleError: the candidate was made from another policy or dataset.
    """
    from threadpoolctl import threadpool_limits

    from quant.anatomy import dissect
    from quant.runs.reading import read_candidates, read_inputs
    from quant.runs.settings import read_settings
    from quant.tracks.ptq import rewritings

    settings = read_settings(folder)
    if track is not None and track not in settings.tracks:
        known = " or ".join(settings.tracks) or "none yet"
        raise InputError(
            f"the run has no candidate {track!r}",
            where="--track",
            expected=known,
            hint=f"make it: quant {track} {folder}" if track in TRACKS else did_you_mean(track, settings.tracks),
        )
    policy, dataset = read_inputs(folder)
    candidates = read_candidates(folder, settings)
    frames = _stress_frames(folder, dataset, candidates) if stress else _held_out(dataset)
    chosen = [candidate for name, candidate in candidates.items() if track in (None, name)]
    _check_fits(policy, dataset, chosen)
    # On one thread, so that the figures do not depend on the number of processors.
    with threadpool_limits(1):
        ways = rewritings(policy, dataset)
        how: dict[str, Any] = {"rewritten": ways, "worst": worst, "contract": dataset.contract}
        return [dissect(policy, one, frames.observations, **frames.how, **how) for one in chosen]


@dataclass(frozen=True)
class _Frames:
    """What candidates are explained on, and what `dissect` is told of it."""

    observations: Observations
    how: dict[str, Any]


def _held_out(dataset: Dataset) -> _Frames:
    from quant.dataset import Split
    from quant.runs.run import origins_of

    rows = dataset.rows(Split.HELD_OUT)
    return _Frames(dataset.observations(rows), {"origins": origins_of(dataset, rows), "rows": rows})


def _stress_frames(folder: Path, dataset: Dataset, candidates: Mapping[str, Candidate]) -> _Frames:
    """Each frame once; a row is its place in ``stress_frames.npz``."""
    import numpy as np

    from quant.runs.reading import read_stress

    stress = read_stress(folder, dataset, candidates)
    if stress is None:
        raise InputError("the run was not stressed", where=folder, hint=f"quant stress {folder}")
    found = stress.found
    seen = found.observations
    flat = np.concatenate([seen.ego, seen.peers.reshape(len(seen), -1), seen.mask], axis=1)
    rows = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    return _Frames(seen[rows], {"origins": found.group[rows], "rows": rows, "kind": "stress"})


def _check_fits(policy: Policy, dataset: Dataset, candidates: list[Candidate]) -> None:
    from quant.policy import policy_digest

    made_of = (policy_digest(policy), dataset.digest)
    for candidate in candidates:
        if (candidate.policy_sha256, candidate.dataset_sha256) != made_of:
            raise StaleError(
                "the candidate was made from another policy or dataset",
                where=candidate.track,
                hint=f"run quant {candidate.track} again",
            )


def _document(anatomies: list[Anatomy], sentences: list[str]) -> dict[str, object]:
    from quant.anatomy import advise

    tracks = {one.track: one.to_json() | {"advice": [advice.to_json() for advice in advise(one)]} for one in anatomies}
    return {"tracks": tracks, "contrast": sentences}
