"""What a sweep asks of each seed, when it need not be made again, and what the seeds say together."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant.acceptance.limits import Limits
from quant.commands import console
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.errors import InputError, QuantError
from quant.evaluation.statistics import Bits
from quant.files import read_json, write_json
from quant.policy import Box, save_policy
from quant.report.text import as_text
from quant.runs import steps
from quant.runs.folder import LOCK, MANIFEST, changing
from quant.runs.folder import POLICY as POLICY_FILE
from quant.runs.job import steps_of, usual_seconds
from quant.runs.reading import open_run
from quant.runs.settings import Settings, write_settings
from quant.runs.sources import DEFAULT_EPISODES, Sources, read_sources
from quant.runs.steps import decide, evaluate, make_dataset, make_track
from quant.sweep import cluster
from quant.sweep.jobs import Job, Sweep, claimed, collect, is_finished, keep, parse_seeds, plan_sweep, unpacked
from quant.sweep.process import Failure, Step
from quant.sweep.summary import EPISODES, FRAMES, Choice, Entry, Spread, Summary, Trial, _choose, _half, summarize
from quant.sweep.table import table
from quant.tracks.candidate import Affine
from quant.tracks.storage import load_candidate, save_candidate
from tests.commandline import quant
from tests.evaluation import synthetic
from tests.tracks import strategies

LIMITS = Limits(action_disagreement=1.0)
POLICY = strategies.policy(2, ego=6, space=Box((0.0,), (1.0,)))
TRACKS = ("ptq",)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0:8", tuple(range(8))), ("3", (3,)), ("9,0:3", (0, 1, 2, 9)), (" 5 , 7:9 ", (5, 7, 8))],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3:1", "4:4", "1,1", "0:3,2", "-1", "0:2:4", "0:2000", "1,", "9999999999"])
def test_no_seeds(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_seeds(text)
    assert caught.value.where == "--seeds" and caught.value.expected


def test_training_alone_leaves_data_and_scenarios_as_they_are(tmp_path: Path) -> None:
    settings = Settings("p.zip", ("a.npz",), seed=7)
    jobs = plan_sweep(tmp_path, Sources(POLICY), settings, (1, 2), TRACKS, LIMITS).jobs
    assert [(job.settings.seed, job.settings.training_seed) for job in jobs] == [(7, 1), (7, 2)]
    jobs = plan_sweep(tmp_path, Sources(POLICY), settings, (1, 2), TRACKS, LIMITS, "all").jobs
    assert [(job.settings.seed, job.settings.training_seed) for job in jobs] == [(1, None), (2, None)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished sweep of four seeds, two of them with the same models; without TensorFlow, which would take longer."""
    folder = tmp_path_factory.mktemp("sweep")
    save_policy(POLICY, folder / "policy.npz")
    strategies.write_drive(folder / "drive.npz", strategies.frames(1500, 1, ego=6, slots=4, most=3))
    # What the command makes of the same words.
    settings = Settings(str(folder / "policy.npz"), (str(folder / "drive.npz"),), episodes=dict(DEFAULT_EPISODES))
    sources = read_sources(folder / "policy.npz", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "PARITY_FRAMES", 3)
        return _finished_sweep(folder, sources, settings)


def _finished_sweep(folder: Path, sources: Sources, settings: Settings) -> Sweep:
    planned = plan_sweep(folder / "sweep", sources, settings, range(4), TRACKS, LIMITS)
    made = _finished(planned.run_folder(0), planned.jobs[0], sources)
    for job, share in zip(planned.jobs[1:], (1.0, 0.6, 0.9), strict=True):
        run = Path(shutil.copytree(made, planned.run_folder(job.seed)))
        write_settings(replace(job.settings, tracks=TRACKS), run)
        ptq = load_candidate(run, "ptq")
        gain = (ptq.peer_input.gain * np.float32(share)).astype(np.float32)
        save_candidate(replace(ptq, peer_input=Affine(gain, ptq.peer_input.offset)), run)
        if share == 1.0:
            assert (run / "candidate_ptq.json").read_bytes() == (made / "candidate_ptq.json").read_bytes()
        evaluate(run, LIMITS, workers=1)
        decide(run, LIMITS)
    return planned


def _finished(folder: Path, job: Job, sources: Sources) -> Path:
    folder.mkdir(parents=True)
    write_settings(job.settings, folder)
    save_policy(sources.policy, folder / POLICY_FILE)
    make_dataset(folder, job.settings, sources=sources)
    make_track(folder, "ptq")
    evaluate(folder, LIMITS, workers=1)
    decide(folder, LIMITS)
    return folder


def command(sweep: Sweep, *more: object) -> tuple[object, ...]:
    limits = sweep.folder.parent / "limits.json"
    limits.write_text(json.dumps({"action_disagreement": 1.0}))
    settings = sweep.jobs[0].settings
    return (
        "sweep", settings.checkpoint, "--drive", settings.drives[0], "--seeds", "0:4", "--tracks", "ptq",
        "--limits", limits, "--out", sweep.folder, *more,
    )  # fmt: skip


def test_sources_come_back_from_their_bytes(sweep: Sweep) -> None:
    made = unpacked(sweep.inputs)
    assert made.drives[0].sha256 == sweep.sources.drives[0].sha256
    assert np.array_equal(made.drives[0].observations.peers, sweep.sources.drives[0].observations.peers)
    assert np.array_equal(made.policy.head[0].weight, sweep.sources.policy.head[0].weight)


def test_finished_seeds_are_not_made_again_and_their_summary_is_the_same_every_time(sweep: Sweep) -> None:
    first = quant(*command(sweep))
    document = (sweep.folder / "sweep.json").read_bytes()
    assert first.code == 0, first.err
    assert "finished already, with the same inputs: seed 0, 1, 2, 3" in first.err
    again = quant(*command(sweep, "--json"))
    assert again.code == 0 and json.loads(again.out) == json.loads(document)
    assert (sweep.folder / "sweep.json").read_bytes() == document
    assert "deploy ptq of seed" in first.out and "nobody chose by" in " ".join(first.out.split())
    assert not (sweep.folder / LOCK).exists()


def with_settings(**changes: Any) -> Callable[[Job, Sources], tuple[Job, Sources]]:
    return lambda job, sources: (replace(job, settings=replace(job.settings, **changes)), sources)


OTHER: dict[str, Callable[[Job, Sources], tuple[Job, Sources]]] = {
    "steps of QAT": with_settings(qat_steps=3),
    "data seed": with_settings(seed=3),
    "training seed": with_settings(training_seed=3),
    "what was said of the policy": with_settings(given={"max_peers": 8}),
    "limits": lambda job, sources: (replace(job, limits=Limits()), sources),
    "tracks": lambda job, sources: (replace(job, tracks=("ptq", "qat")), sources),
    "policy": lambda job, sources: (job, replace(sources, policy=strategies.policy(3, ego=6))),
    "drive": lambda job, sources: (job, replace(sources, drives=(replace(sources.drives[0], sha256="0" * 64),))),
    "no drive": lambda job, sources: (job, replace(sources, drives=())),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_seed_of_other_inputs_is_made_again(sweep: Sweep, what: str) -> None:
    job, sources = sweep.jobs[0], sweep.sources
    folder = sweep.run_folder(0)
    assert is_finished(folder, job, sources)
    assert not is_finished(folder, *OTHER[what](job, sources))


@pytest.mark.parametrize("damage", ["versions", "quant_sha256", "files", None])
def test_a_seed_that_is_damaged_or_of_another_quant_is_made_again(
    sweep: Sweep, tmp_path: Path, damage: str | None
) -> None:
    run = Path(shutil.copytree(sweep.run_folder(0), tmp_path / "run"))
    assert is_finished(run, sweep.jobs[0], sweep.sources)
    if damage is None:
        (run / "eval_ptq.json").write_text("{}")
    else:
        manifest = read_json(run / MANIFEST)
        write_json(run / MANIFEST, manifest | {damage: {}})
    assert not is_finished(run, sweep.jobs[0], sweep.sources)
    assert not is_finished(tmp_path / "none", sweep.jobs[0], sweep.sources)


def test_a_run_travels_whole(sweep: Sweep, tmp_path: Path) -> None:
    files = collect(sweep.run_folder(2))
    keep(tmp_path / "run", collect(sweep.run_folder(0)))
    (tmp_path / "run" / "loss_curve_qat.csv").write_text("of an earlier run")
    keep(tmp_path / "run", files)
    assert collect(tmp_path / "run") == files
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(files)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/quant-escaped", "a/../../b"])
def test_a_worker_cannot_write_elsewhere(sweep: Sweep, tmp_path: Path, name: str) -> None:
    with pytest.raises(QuantError, match="not of a run"):
        keep(tmp_path / "run", collect(sweep.run_folder(0)) | {name: b"x"})
    assert not (tmp_path / "escaped").exists() and not Path("/tmp/quant-escaped").exists()
    with pytest.raises(InputError, match="not finished"):
        open_run(tmp_path / "run")


def test_a_foreign_folder_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError) as caught, claimed(folder):
            raise AssertionError
        assert "--out" in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_sweep_in_a_folder_at_a_time(sweep: Sweep) -> None:
    with changing(sweep.folder):
        done = quant_in_a_thread(*command(sweep))
    assert done.code == 2 and "is being changed by process" in done.err


def quant_in_a_thread(*arguments: object) -> Any:
    import threading

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(quant(*arguments)))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--seeds", "3:1"), "--seeds"),
        (("--dask", "tcp://127.0.0.1:1", "--workers", "2"), "--workers with --dask"),
        (("--tracks", "best"), "--tracks"),
        (("--vary", "nothing"), "nothing"),
    ],
)
def test_bad_usage_is_code_2(sweep: Sweep, more: tuple[str, ...], words: str) -> None:
    done = quant(*command(sweep, *more))
    assert done.code == 2 and words in done.err


def test_without_dask_it_says_what_to_install(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = quant(*command(sweep))
    assert done.code == 2 and cluster.INSTALL in done.err


def summary_of(sweep: Sweep, failures: Mapping[int, str] = {}) -> Any:
    runs = {job.seed: open_run(sweep.run_folder(job.seed)) for job in sweep.jobs if job.seed not in failures}
    return summarize({seed: (run, run.verdict(LIMITS)) for seed, run in runs.items()}, failures, LIMITS, sweep.vary)


def test_figures_are_those_of_the_runs_and_the_same_models_count_once(sweep: Sweep) -> None:
    found = summary_of(sweep)
    evaluated = [read_json(sweep.run_folder(seed) / "eval_ptq.json")["open_loop"]["overall"] for seed in range(4)]
    for entry, one in zip(found.to_json()["candidates"], evaluated, strict=True):
        assert entry["figures"] == {"agreement": one["agreement"]["value"], "mae": one["mae"]}
    errors = [one["mae"] for one in evaluated]
    assert found.spreads["ptq"]["mae"].mean == pytest.approx(np.mean(errors), rel=1e-4)
    assert found.spreads["ptq"]["mae"].deviation == pytest.approx(np.std(errors, ddof=1), rel=1e-4)
    assert found.items == FRAMES and not found.unpaired and not found.same
    assert {(one.first, one.second) for one in found.differences} == {(0, 2), (0, 3), (2, 3)}
    assert found.choice.among == 3 and found.winners == dict.fromkeys(range(4), "ptq")
    assert found.exit_code == 0


def test_frames_are_chosen_and_confirmed_by_whole_blocks(sweep: Sweep) -> None:
    run = open_run(sweep.run_folder(0))
    entry = summary_of(sweep).entries[0]
    rows = run.dataset.rows(Split.HELD_OUT, Made.SEEN)
    blocks = run.dataset.column("block")[rows]
    assert len(entry.trial.chosen) == len(rows) and 0 < entry.trial.chosen.sum() < len(rows)
    for block in np.unique(blocks):
        assert len(set(entry.trial.chosen[blocks == block].tolist())) == 1
    assert entry.trial.mean_error == pytest.approx(entry.figures["mae"], rel=1e-6)
    assert entry.trial.good.mean() == pytest.approx(entry.figures["agreement"])


def test_a_failed_seed_is_told_and_makes_the_code_2(sweep: Sweep) -> None:
    found = summary_of(sweep, {3: "Traceback:\n  lots\nValueError: the worker is on fire"})
    assert found.exit_code == 2
    assert "seed 3 failed: ValueError: the worker is on fire" in found.sentences()
    assert "on fire" in as_text(table(found))


def test_seeds_of_data_are_not_paired(sweep: Sweep) -> None:
    found = summary_of(replace(sweep, vary="all"))
    assert found.differences == () and found.choice is not None
    assert any("every seed has scenarios and frames of its own" in words for words in found.sentences())


def trial(good: Bits, bad: Bits | None = None) -> Trial:
    return Trial(good, ~good if bad is None else bad, None, np.arange(len(good)) % 2 == 0)


def entry(seed: int, good: Bits, bad: Bits | None = None, *, size: int = 3000, reference: Bits | None = None) -> Entry:
    made = synthetic.candidate("qat", size + seed)
    own = trial(np.ones_like(good) if reference is None else reference)
    evaluation = synthetic.evaluated(made, None, synthetic.frames())
    return Entry(seed, "qat", True, {}, str(seed), size, evaluation, trial(good, bad), own)


def test_what_was_chosen_is_worth_what_the_other_half_says() -> None:
    """Eight candidates that are all right with probability 0.9: the chosen one looks better than it is, and only on
    the half it was chosen on."""
    rng = np.random.default_rng(0)
    chosen, confirmed = [], []
    for _ in range(300):
        rivals = [entry(seed, rng.random(400) < 0.9) for seed in range(8)]
        choice = _choose(rivals, replace(LIMITS, tie_significance=1.0), paired=True, driving=True)
        assert choice is not None and choice.confirmed is not None
        assert choice.chosen.n == choice.confirmed.n == 200
        chosen.append(choice.chosen.good.value)
        confirmed.append(choice.confirmed.good.value)
    assert np.mean(chosen) > 0.92
    assert np.mean(confirmed) == pytest.approx(0.9, abs=0.005)


def test_the_half_that_confirms_has_no_part_in_the_choice() -> None:
    """Neither in who leads, nor in who ties with the leader, nor in how many collide."""
    rng = np.random.default_rng(1)
    first = np.arange(400) % 2 == 0
    for _ in range(50):
        good, bad = rng.random((2, 4, 400)) < [[[0.9]], [[0.1]]]
        other_good, other_bad = rng.random((2, 4, 1)) > rng.random((2, 4, 400))
        chosen = {
            _seed_of([entry(seed, *outcomes) for seed, outcomes in enumerate(zip(own, crashed, strict=True))])
            for own, crashed in (
                (good, bad),
                (np.where(first, good, other_good), bad),
                (good, np.where(first, bad, other_bad)),
            )
        }
        assert len(chosen) == 1


def _seed_of(rivals: Sequence[Entry]) -> int:
    choice = _choose(rivals, LIMITS, paired=True, driving=True)
    assert choice is not None
    return choice.seed


def test_who_fails_a_limit_is_not_chosen_from(sweep: Sweep) -> None:
    runs = {job.seed: open_run(sweep.run_folder(job.seed)) for job in sweep.jobs}
    worst, second, *_ = sorted({1 - one.figures["agreement"] for one in summary_of(sweep).entries}, reverse=True)
    limits = replace(LIMITS, action_disagreement=(worst + second) / 2)
    found = summarize({seed: (run, run.verdict(limits)) for seed, run in runs.items()}, {}, limits, sweep.vary)
    assert sum(not one.eligible for one in found.entries) == 1
    assert found.choice is not None and found.choice.among == 2


def test_those_that_tie_are_told_apart_by_collisions() -> None:
    good = np.ones(400, np.bool_)
    one_more = good.copy()
    one_more[0] = False
    worse = good.copy()
    worse[:60] = False
    crash = np.zeros(400, np.bool_)
    crash[2] = True
    rivals = [entry(0, good, crash), entry(1, one_more, ~good), entry(2, worse, ~good, size=2000)]
    choice = _choose(rivals, LIMITS, paired=True, driving=True)
    assert choice is not None and choice.seed == 1
    choice = _choose(rivals, LIMITS, paired=False, driving=True)
    assert choice is not None and choice.seed == 0
    assert _choose([], LIMITS, paired=True, driving=True) is None


def test_a_half_holds_its_figures() -> None:
    good = np.ones(400, np.bool_)
    good[1:41:2] = False  # of the half to confirm
    one, other = entry(0, good), entry(1, np.ones(400, np.bool_))
    half = _half(one, [one, other], False)
    assert (half.n, half.good.value, half.bad, half.error) == (200, 0.9, 20, None)
    assert half.typical == pytest.approx(0.95) and half.drop is not None and half.drop.value == pytest.approx(0.1)
    assert _half(one, [one, other], True).good.value == 1.0


def test_where_nothing_is_left_to_confirm_by_it_says_so() -> None:
    """One block of held-out frames, or one episode of each slice."""
    rivals = [entry(seed, np.ones(1, np.bool_)) for seed in range(2)]
    choice = _choose(rivals, LIMITS, paired=True, driving=True)
    assert choice is not None and (choice.chosen.n, choice.confirmed) == (1, None)
    made = summary_with(rivals, choice)
    assert any("nothing is left to confirm it on" in words for words in made.sentences())
    assert made.to_json()["deploy"]["confirmed_on"] is None and made.exit_code == 0


def test_that_limits_put_candidates_out_by_all_items_is_said() -> None:
    rivals = [entry(seed, np.ones(400, np.bool_)) for seed in range(3)]
    choice = _choose(rivals[:2], LIMITS, paired=True, driving=True)
    words = "1 of 3 candidates are out by a limit; limits are held against all episodes, also those that confirm"
    assert words in summary_with([*rivals[:2], replace(rivals[2], eligible=False)], choice).sentences()
    assert words not in summary_with(rivals, choice).sentences()


def summary_with(entries: Sequence[Entry], choice: Choice | None) -> Summary:
    winners = dict.fromkeys((one.seed for one in entries), "qat")
    return Summary("training", EPISODES, "", tuple(entries), winners, {}, (), {"qat": {}}, (), choice, ())


def test_a_track_is_held_against_the_first_seed_by_seed() -> None:
    good = np.ones(400, np.bool_)
    worse, worst = good.copy(), good.copy()
    worse[0] = worst[:9] = False
    entries = [
        replace(entry(seed, bits), track=track)
        for track, seeds in {"ptq": (worse, worse, worse), "qat": (good, good, worst)}.items()
        for seed, bits in enumerate(seeds)
    ]
    made = Summary(
        "training", EPISODES, "", tuple(entries), dict.fromkeys(range(3), "qat"), {}, ("ptq",),
        {"ptq": {}, "qat": {}}, (), None, (),
    )  # fmt: skip
    assert "qat against ptq: more successes in 2 of 3 seeds, fewer successes in 1" in made.sentences()
    assert "wins in 3 seeds: ptq 0, qat 3" in made.sentences() and made.exit_code == 1


def test_spread_of_one_value_has_no_deviation() -> None:
    assert Spread.of([2.0]) == Spread(2.0, None, 2.0, 2.0)
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 2.0**0.5, 1.0, 3.0)


def test_versions_that_differ_are_named() -> None:
    ours = cluster.environment()
    assert {"python", "quant", "tensorflow", "tflite-micro", "distributed", cluster.SOURCES} <= ours.keys()
    assert cluster.differing(ours, ours) == ""
    theirs = ours | {"tensorflow": "2.20.0", cluster.SOURCES: "x"}
    del theirs["numpy"]
    words = cluster.differing(ours, theirs)
    assert f"tensorflow 2.20.0 for {ours['tensorflow']}" in words
    assert f"numpy missing for {ours['numpy']}" in words and "the sources of quant" in words


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_goes_on_as_fast_as_what_went_before() -> None:
    clock = Clock()
    pace = console.Pace({"import": 4.0, "qat": 10.0, "evaluate": 20.0}, clock)
    pace.reached("import", 0.0)
    assert pace.remaining is None and pace.share == 0
    clock.now += 8  # twice as slow as usual
    pace.reached("import", 1.0)
    assert pace.remaining == pytest.approx(60) and pace.share == pytest.approx(4 / 34)
    pace.reached("qat", 0.0)
    clock.now += 5  # a step that says nothing: its own twenty seconds run down
    assert pace.remaining == pytest.approx(55)
    clock.now += 30  # and never what comes after it
    assert pace.remaining == pytest.approx(40)
    pace.reached("qat", 0.5)
    assert pace.remaining == pytest.approx(43 / 9 * 25)
    pace.reached("something else", 1.0)
    assert pace.share == pytest.approx(9 / 34)
    pace.reached("evaluate", 1.0)
    assert pace.remaining == pytest.approx(0) and pace.share == pytest.approx(1)
    pace.reached("qat", 0.0)  # a worker died, and another begins again
    assert pace.share == pytest.approx(4 / 34)


def test_times_are_told_as_guesses() -> None:
    assert [console.about(one) for one in (None, 5.4, 65, 3725)] == ["", "about 0:05", "about 1:05", "about 1:02:05"]


def test_without_a_world_the_evaluation_is_not_what_takes_long() -> None:
    steps = steps_of(("ptq", "qat"), with_board=True)
    assert steps == ("import", "dataset", "ptq", "qat", "evaluate", "stress", "device", "decide")
    recorded = usual_seconds(Settings("p.zip", ("a.npz",), episodes={"nominal": 4000}), steps)
    driven = usual_seconds(Settings("p.zip", world="convoy"), steps)
    assert tuple(recorded) == tuple(driven) == steps
    assert recorded["evaluate"] < recorded["qat"] < driven["evaluate"]
    assert usual_seconds(Settings("p.zip", qat_steps=2000), ("qat",))["qat"] > driven["qat"]


def test_a_sweep_is_as_far_as_its_seeds_are() -> None:
    seen = []
    with console.sweeping(2, {"import": 1.0, "qat": 3.0}) as progress:
        for seed, step in ((3, Step("import", 1, 1)), (4, Step("qat", 1, 3))):
            progress.told(seed, step)
            seen.append(progress.share)
        progress.ended(3)
        seen.append(progress.share)
    assert seen == pytest.approx([0.125, 0.375, 0.75])


def test_without_a_terminal_a_seed_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with console.sweeping(2, {"import": 4.0, "decide": 0.3}) as progress:
        progress.told(3, Step("import", 0, 0))
        progress.ended(3)
        progress.ended(4, "failed: out of memory")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("seed 3 ") and lines[0].endswith(" s")
    assert lines[1].split() == ["seed", "4", "failed:", "out", "of", "memory"]


def test_every_seed_failing_says_why(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "run_jobs", lambda jobs, *_, **__: ((job, Failure("no space left")) for job in jobs))
    done = quant(*command(sweep, "--seeds", "0:2", "--out", tmp_path / "new"))
    assert done.code == 2 and "every seed failed, the first with: no space left" in done.err
