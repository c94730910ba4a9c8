"""The whole job, from a checkpoint to a decision, and who watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quant.acceptance.decision import Verdict
from quant.acceptance.limits import Limits
from quant.boards.bench import Bench
from quant.boards.board import Board
from quant.errors import InputError
from quant.evaluation.stress.stress import FRAMES
from quant.files import Progress
from quant.runs.folder import changing, claim
from quant.runs.reading import open_run, pack_of
from quant.runs.run import Run
from quant.runs.settings import Settings
from quant.runs.sources import DEFAULT_EPISODES, Sources, read_sources
from quant.runs.steps import (
    check_sumo,
    evaluate,
    finish,
    keep_policy,
    leave_drives_out,
    make_dataset,
    make_track,
    run_device,
    second_opinion,
    stress,
)
from quant.tracks.qat import QatOptions
from quant.tracks.registry import DEFAULT_TRACKS, check_tracks
from quant.wire.protocol import MAX_SLOTS


@dataclass
class Watch:
    """Who watches a run: told its steps and usual seconds, their start, progress and end; keeps the wall times."""

    planned: Callable[[Mapping[str, float]], None] = lambda seconds: None
    started: Callable[[str], None] = lambda name: None
    advanced: Callable[[str, int, int], None] = lambda name, done, total: None
    finished: Callable[[str, float], None] = lambda name, seconds: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Times a step and hands out its progress callback."""
        self.started(name)
        begin = time.perf_counter()
        yield lambda done, total: self.advanced(name, done, total)
        self.seconds[name] = time.perf_counter() - begin
        self.finished(name, self.seconds[name])

    def note(self, stage: str, seconds: float) -> None:
        """Keeps the CPU time of a stage of the evaluation, which its processes share."""
        self.seconds[f"evaluate, CPU: {stage}"] = seconds


def run_all(
    checkpoint: Path | Callable[[], Sources],
    folder: Path,
    settings: Settings,
    limits: Limits,
    *,
    board: Board | None = None,
    tracks: Sequence[str] = DEFAULT_TRACKS,
    workers: int | None = None,
    watch: Watch | None = None,
    sumo: bool = False,
) -> tuple[Run, Verdict]:
    """The whole job: import, dataset, tracks, evaluation, stress, SUMO where asked, a board where given, decision.

    ``checkpoint`` is a file, read as the settings say, or gives the sources, wherever they were read.
    """
    watch = watch or Watch()
    watch.planned(
        usual_seconds(
            settings, steps_of(tracks, board is not None, sumo, leaves_out(settings), stresses(settings)), tracks
        )
    )
    if sumo:
        check_sumo(settings)
    if board is not None:
        _check_slots(tracks)
        with board:
            pass  # whoever named one that is not to be had learns it before the work, not after
    with ExitStack() as stack:
        with watch.step("import"):
            sources = read_sources(checkpoint, settings) if isinstance(checkpoint, Path) else checkpoint()
            check_tracks(tracks, sources.policy)
            claim(folder)
            stack.enter_context(changing(folder))
            keep_policy(folder, sources.policy, settings)
        with watch.step("dataset") as progress:
            make_dataset(folder, settings, progress, sources)
        for track in tracks:
            with watch.step(track) as progress:
                make_track(folder, track, progress)
        if leaves_out(settings):
            with watch.step("unseen") as progress:
                leave_drives_out(folder, limits, workers, progress)
        with watch.step("evaluate") as progress:
            evaluate(folder, limits, workers, progress, watch.note)
        if stresses(settings):
            with watch.step("stress") as progress:
                stress(folder, limits, workers=workers, progress=progress)
        if sumo:
            with watch.step("sumo") as progress:
                second_opinion(folder, limits, workers=workers, progress=progress)
        if board is not None:
            with watch.step("device") as progress, Bench(board, pack_of(folder)) as bench:
                run_device(folder, bench, progress)
        with watch.step("decide"):
            return finish(folder, limits, watch.seconds)


def _check_slots(tracks: Sequence[str]) -> None:
    """Sees before the work that a board holds so many candidates."""
    if len(tracks) > MAX_SLOTS:
        raise InputError(
            f"{len(tracks)} tracks: {', '.join(tracks)}",
            where="--tracks",
            expected=f"at most {MAX_SLOTS}, which a board holds at once",
            hint="make two runs of the same --seed: they share dataset and scenarios",
        )


def steps_of(
    tracks: Sequence[str],
    with_board: bool,
    with_sumo: bool = False,
    with_unseen: bool = False,
    with_stress: bool = True,
) -> tuple[str, ...]:
    """The steps of a whole run, in order."""
    before = ["unseen"] if with_unseen else []
    steps = (("stress", with_stress), ("sumo", with_sumo), ("device", with_board))
    others = [name for name, asked in steps if asked]
    return ("import", "dataset", *tracks, *before, "evaluate", *others, "decide")


def leaves_out(settings: Settings) -> bool:
    """Whether a run leaves drives out in turn: it was not told not to, and something is left to make tracks of."""
    return settings.unseen and len(settings.drives) + (settings.world is not None and bool(settings.drives)) > 1


def stresses(settings: Settings) -> bool:
    """Whether a run looks for the worst over the range of the inputs: it was not told not to."""
    return settings.stress_frames != 0


def usual_seconds(settings: Settings, steps: Sequence[str], tracks: Sequence[str] = ()) -> dict[str, float]:
    """What the steps of a run take, about: as the reference policy's did on two processors.

    Only their proportions are worth anything: they tell how much of a run is done before its last step has begun.
    """
    driven = settings.world is not None
    episodes = sum((settings.episodes or DEFAULT_EPISODES).values()) if driven else 0
    training = 1.0 if settings.qat_steps is None else settings.qat_steps / QatOptions.steps
    usual = {
        "import": 4.0,
        "dataset": 1.5 if driven else 0.3,
        "qat": 4.0 + 5.5 * training,
        "evaluate": 1.0 + 15.0 * episodes / sum(DEFAULT_EPISODES.values()),
        "sumo": 1.0 + 60.0 * episodes / sum(DEFAULT_EPISODES.values()),
        "stress": 3.0 + 6.0 * (settings.stress_frames or FRAMES) / FRAMES,
        "device": 1.5,
        "decide": 0.3,
    }
    # Every track once more for each drive, two at a time.
    usual["unseen"] = 2.0 + len(settings.drives) * sum(usual.get(track, 2.0) for track in tracks) / 2
    return {step: usual.get(step, 2.0) for step in steps}


def reference_run(folder: Path, *, workers: int | None = None, **changes: Any) -> Run:
    """A run of the reference policy in our convoy world; ``changes`` to the settings, as ``episodes``."""
    from quant.worlds.reference import reference_policy_path

    checkpoint = reference_policy_path()
    settings = Settings(checkpoint.name, world="convoy", **changes)
    run_all(checkpoint, folder, settings, Limits(), workers=workers)
    return open_run(folder)
