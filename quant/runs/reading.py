"""Reading a run back: whole or in parts, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quant.acceptance.limits import Limits, limits_from
from quant.boards.pack import build_pack, read_pack
from quant.boards.report import LEAST_REPEATS, DeviceReport, load_report
from quant.dataset import Dataset, load_dataset
from quant.dataset.storage import DESCRIPTION
from quant.errors import InputError, QuantError, StaleError
from quant.evaluation.evaluation import FLOAT, Evaluation, check_together, load_evaluation
from quant.evaluation.second_opinion import SecondOpinion, load_second_opinion
from quant.evaluation.stress.measure import cut_columns
from quant.evaluation.stress.results import Stress, load_stress
from quant.files import read_bytes, read_json
from quant.observation.contract import Contract
from quant.observation.storage import read_contract
from quant.policy import Policy, load_policy, policy_digest
from quant.runners import ParityReport, parity_from_json
from quant.runs.folder import (
    OBSERVATION,
    PARITY,
    POLICY,
    SCENARIOS,
    SECOND_OPINION,
    STRESS,
    STRESS_FRAMES,
    UNSEEN,
    WINNER,
    evaluation_name,
)
from quant.runs.manifest import check_manifest
from quant.runs.run import Run
from quant.runs.settings import Settings, read_settings
from quant.runs.sources import world_of
from quant.runs.unseen import LeftOut, read_left_out
from quant.tracks.candidate import Candidate
from quant.tracks.storage import load_candidate
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World


def open_run(folder: Path) -> Run:
    """Reads a finished run and checks it: manifest, hashes, and that its artifacts belong together.

    Raises:
        InputError: it is not a finished run, or a file is malformed.
        StaleError: a file has changed, or artifacts do not belong together.
    """
    read_settings(folder)
    check_manifest(folder)
    return read_run(folder)


def read_run(folder: Path, *, devices: bool = True, second: bool = True, stress: bool = True) -> Run:
    """Reads a run's artifacts, whether or not it is finished, and checks that they fit.

    Args:
        folder: the run.
        devices: False leaves the boards' reports alone, for a step that makes one anew.
        second: False leaves the second opinion alone, likewise.
        stress: False leaves the stress test alone, likewise.
    """
    settings = read_settings(folder)
    policy, dataset = read_inputs(folder)
    candidates = read_candidates(folder, settings)
    evaluations = {name: _read_evaluation(folder, name) for name in (FLOAT, *candidates)}
    check_together(evaluations)
    world = world_of(settings)
    scenarios = read_scenarios(folder, world)
    _check_fits(policy, dataset, candidates, evaluations, scenarios)
    return Run(
        folder=folder,
        settings=settings,
        policy=policy,
        dataset=dataset,
        candidates=candidates,
        evaluations=evaluations,
        parity=_read_parity(folder, candidates),
        devices=_read_devices(folder, candidates) if devices else {},
        world=world,
        scenarios=scenarios,
        second=_read_second_opinion(folder, evaluations) if second else None,
        stress=read_stress(folder, dataset, candidates) if stress else None,
    )


def read_policy(folder: Path) -> Policy:
    """The run's policy."""
    read_settings(folder)
    return load_policy(folder / POLICY)


def read_inputs(folder: Path) -> tuple[Policy, Dataset]:
    """The run's policy and the dataset that was made from it."""
    policy = read_policy(folder)
    if not (folder / DESCRIPTION).is_file():
        raise InputError("the run has no dataset yet", where=folder, hint=f"quant dataset {folder}")
    dataset = load_dataset(folder, policy, policy_digest(policy))
    _check_contract(folder / OBSERVATION, dataset.contract)
    return policy, dataset


def _check_contract(path: Path, contract: Contract) -> None:
    """The file that a reader looks at, where there is one, says what the dataset was made with."""
    if path.is_file() and read_contract(path).to_json() != contract.to_json():
        raise StaleError(
            "is another observation contract than the dataset was made with",
            where=path,
            hint="make the dataset of it (quant run or quant dataset with --observation FILE, a file outside the run)",
        )


def read_candidates(folder: Path, settings: Settings) -> dict[str, Candidate]:
    """The run's candidates by track.

    Raises:
        InputError: there is none.
    """
    if not settings.tracks:
        raise no_candidate(folder)
    return {track: load_candidate(folder, track) for track in settings.tracks}


def no_candidate(folder: Path) -> InputError:
    """No track has been made yet."""
    return InputError("the run has no candidate yet", where=folder, hint=f"quant ptq {folder}; quant qat {folder}")


def training_seed_of(settings: Settings) -> int:
    """The seed of training: its own where it has one, else the run's."""
    return settings.seed if settings.training_seed is None else settings.training_seed


def training_of(settings: Settings) -> dict[str, int | None]:
    """What the tracks of a run are made with, beside the dataset."""
    return {"seed": training_seed_of(settings), "qat_steps": settings.qat_steps}


def read_unseen(folder: Path, dataset: Dataset, settings: Settings) -> LeftOut | None:
    """What was found by leaving drives out; None where none was.

    Raises:
        InputError: the file is malformed.
        StaleError: it is of another dataset, policy or training.
    """
    path = folder / UNSEEN
    return read_left_out(path, dataset, training_of(settings)) if path.is_file() else None


def read_scenarios(folder: Path, world: World | None) -> ScenarioSet | None:
    """The run's frozen scenarios, if it has a world."""
    if world is None:
        return None
    path = folder / SCENARIOS
    return world.read(read_bytes(path).decode(errors="replace"), path)


def pack_of(folder: Path) -> bytes:
    """The pack of a run's candidates."""
    return build_pack(list(read_candidates(folder, read_settings(folder)).values()))


def limits_of(folder: Path) -> Limits:
    """The limits that a run was decided under."""
    path = folder / WINNER
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("limits"), dict):
        raise InputError("holds no limits", where=path, hint=f"quant decide {folder}")
    return limits_from(document["limits"], path)


def _read_evaluation(folder: Path, name: str) -> Evaluation:
    path = folder / evaluation_name(name)
    if not path.is_file():
        raise InputError(f"{name} has not been evaluated yet", where=path, hint=f"quant evaluate {folder}")
    return load_evaluation(path)


def _read_parity(folder: Path, candidates: Mapping[str, Candidate]) -> dict[str, ParityReport]:
    path = folder / PARITY
    document = read_json(path)
    missing = [name for name in candidates if not isinstance(document, dict) or name not in document]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", where=path, hint=f"quant evaluate {folder}")
    reports = {name: parity_from_json(document[name], path) for name in candidates}
    check_conforms(reports)
    return reports


def check_conforms(reports: Mapping[str, ParityReport]) -> None:
    """Sees that TFLite-Micro gives the bytes of the arithmetic that verdicts are computed in."""
    for name, report in reports.items():
        if not report.conforms:
            raise QuantError(
                "TFLite-Micro gives other bytes than the arithmetic verdicts are computed in",
                where=name,
                hint="the installed tflite-micro is not the pinned one, or this is a fault; please report it",
            )


def _read_devices(folder: Path, candidates: Mapping[str, Candidate]) -> dict[str, DeviceReport]:
    reports = {}
    for path in sorted(folder.glob("device_*.json")):
        report = load_report(path)
        reports[report.board.name] = report
        again = f"run the board again (quant device {folder} --board {report.board.name}), or remove the file"
        for track, hashes in report.hashes().items():
            if track not in candidates or hashes != candidates[track].hashes:
                raise StaleError(f"the board ran another {track} than the run holds", where=path, hint=again)
            if not report.covers(track, candidates[track].max_peers):
                raise StaleError(
                    f"{track} was not timed as a verdict needs it",
                    where=path,
                    expected=f"0 to {candidates[track].max_peers} peers, each {LEAST_REPEATS} times or more",
                    hint=again,
                )
        ran = [candidate for track, candidate in candidates.items() if track in report.tracks]
        if report.pack_sha256 != read_pack(build_pack(ran)).sha256:
            # The pack holds what goes between the models too: the quantization of the inputs, the pooling.
            tracks = " or ".join(candidate.track for candidate in ran)
            raise StaleError(
                f"the board ran another {tracks} than the run holds: other inputs or pooling of the same models",
                where=path,
                hint=again,
            )
    return reports


def _read_second_opinion(folder: Path, evaluations: Mapping[str, Evaluation]) -> SecondOpinion | None:
    path = folder / SECOND_OPINION
    return load_second_opinion(path, evaluations) if path.is_file() else None


def read_stress(folder: Path, dataset: Dataset, candidates: Mapping[str, Candidate]) -> Stress | None:
    """The run's stress test; None where it has none.

    Raises:
        InputError: a file is malformed.
        StaleError: it is of another policy, dataset or candidate.
    """
    path = folder / STRESS
    if not path.is_file():
        return None
    found = load_stress(path, folder / STRESS_FRAMES, dataset.contract)
    again = f"quant stress {folder}, or remove the file"
    if (found.hashes["policy"], found.hashes["dataset"]) != (dataset.policy_sha256, dataset.digest):
        raise StaleError("is of another policy or dataset than the run's", where=path, hint=again)
    for track, candidate in candidates.items():
        if track not in found.tracks or found.tracks[track].hashes != candidate.identity:
            raise StaleError(f"was made of another {track} than the run holds", where=path, hint=again)
        own = cut_columns(candidate, dataset.contract)
        if found.tracks[track].cut != own:
            raise StaleError(
                f"names other columns as cut than {track} cannot represent",
                where=path,
                expected=", ".join(own) or "none",
                hint=again,
            )
    return found


def _check_fits(
    policy: Policy,
    dataset: Dataset,
    candidates: Mapping[str, Candidate],
    evaluations: Mapping[str, Evaluation],
    scenarios: ScenarioSet | None,
) -> None:
    """Every candidate and evaluation was made of what is in the folder now; what comes first is named first."""
    common = {
        "policy": policy_digest(policy),
        "dataset": dataset.digest,
        "scenarios": None if scenarios is None else scenarios.digest,
    }
    for name, candidate in candidates.items():
        if (candidate.policy_sha256, candidate.dataset_sha256) != (common["policy"], common["dataset"]):
            raise StaleError(
                "the candidate was made from another policy or dataset", where=name, hint=f"run quant {name} again"
            )
    for name, evaluation in evaluations.items():
        expected: dict[str, str | None] = dict(common)
        if name in candidates:
            expected |= candidates[name].identity
        for what, digest in expected.items():
            if evaluation.hashes.get(what) != digest:
                raise StaleError(
                    f"evaluated with another {what} than the run holds",
                    where=evaluation_name(name),
                    expected=f"sha256 {digest}, found {evaluation.hashes.get(what)}",
                    hint="run quant evaluate again",
                )
