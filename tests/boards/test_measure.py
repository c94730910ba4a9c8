"""The device stage against the virtual board: what it measures, what it refuses, on which frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from quant.boards.bench import Bench
from quant.boards.measure import REPEATS, WARMUP, check_models, conform, frames_with, measure, time_peers
from quant.boards.pack import build_pack
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.boards.virtual.faults import Faults
from quant.boards.virtual.time_model import TICKS_PER_SECOND, decision_instructions
from quant.errors import LinkError, StaleError
from quant.policy import Observations
from quant.runners import read_model
from quant.tracks.candidate import Candidate
from quant.wire.protocol import FaultKind
from tests.boards.candidates import fine, wide
from tests.runners.candidates import box_policy, quantize_policy, random_observations, random_policy

CANDIDATES: Mapping[str, Candidate] = {
    "ptq": replace(quantize_policy(random_policy(1)), track="ptq"),
    "qat": replace(quantize_policy(random_policy(2)), track="qat"),
}
FRAMES = random_observations(60, seed=9)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(VirtualBoard(), build_pack(list(CANDIDATES.values()))) as opened:
        yield opened


def test_it_measures_every_track_with_every_number_of_peers(bench: Bench) -> None:
    steps: list[tuple[int, int]] = []
    before = bench.device.stats().decisions
    report = measure(
        bench.device,
        "virtual",
        CANDIDATES,
        FRAMES,
        repeats=50,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert bench.device.stats().decisions - before == 2 * (len(FRAMES) + 9 * (WARMUP + 50))
    assert steps == [(done, 20) for done in range(1, 21)]
    assert report.board.name == "virtual" and report.board.evidence == "simulated"
    assert report.hashes() == {track: candidate.hashes for track, candidate in CANDIDATES.items()}
    for track in CANDIDATES:
        own = report.tracks[track]
        assert (own.conformance.compared, own.conformance.differing) == (len(FRAMES), 0)
        assert [times.peers for times in own.times] == list(range(9))
        assert own.repeats == 50
    assert report.memory.models_bytes == len(build_pack(list(CANDIDATES.values())))


def test_times_are_the_boards_clock_in_microseconds(bench: Bench) -> None:
    candidate = CANDIDATES["ptq"]
    encoder, head = (read_model(part.tflite) for part in (candidate.peer_encoder, candidate.policy_head))
    for peers in (0, 3, 8):
        times = time_peers(bench.device, "ptq", frames_with(FRAMES, peers), 10)
        expected = decision_instructions(encoder, head, peers) / TICKS_PER_SECOND * 1e6
        assert times.peers == peers
        assert times.total.median == pytest.approx(expected)
    assert WARMUP > 0 and REPEATS >= 100


@pytest.mark.parametrize("candidate", [wide(random_policy(1)), fine(random_policy(1))], ids=["int16", "residuals"])
def test_finer_codes_are_measured_as_well(candidate: Candidate) -> None:
    encoder, head = (read_model(part.tflite) for part in (candidate.peer_encoder, candidate.policy_head))
    with Bench(VirtualBoard(), build_pack([candidate])) as opened:
        report = measure(opened.device, "virtual", {candidate.track: candidate}, FRAMES, repeats=1)
    own = report.tracks[candidate.track]
    assert (own.conformance.compared, own.conformance.differing) == (len(FRAMES), 0)
    for times in own.times:
        expected = decision_instructions(encoder, head, times.peers) / TICKS_PER_SECOND * 1e6
        assert times.total.median == pytest.approx(expected)


def test_a_deliberate_wrong_bit_is_a_difference(bench: Bench) -> None:
    bench.device.fault(FaultKind.CORRUPT_OUTPUT)
    found = conform(bench.device, CANDIDATES["qat"], FRAMES)
    assert (found.differing, dict(found.first), found.example) == (1, {"head": 1}, 0)
    assert conform(bench.device, CANDIDATES["qat"], FRAMES).differing == 0


def test_a_board_that_computes_with_another_model_is_found_out() -> None:
    pack = build_pack(list(CANDIDATES.values()))
    with Bench(VirtualBoard(pack, VirtualOptions(faults=Faults(another_model=True))), pack) as liar:
        report = measure(liar.device, "virtual", CANDIDATES, FRAMES, repeats=1)
    for track in CANDIDATES:
        conformance = report.tracks[track].conformance
        assert conformance.differing > len(FRAMES) / 2
        assert next(iter(conformance.first)) in {"encoder", "head"}


def test_a_board_that_restarts_while_it_is_measured_proves_nothing() -> None:
    pack = build_pack(list(CANDIDATES.values()))
    weak = VirtualBoard(pack, VirtualOptions(faults=Faults(reboot_after=20_000)))
    with Bench(weak, pack) as bench, pytest.raises(LinkError, match="restarted while it was measured: brownout"):
        measure(bench.device, "virtual", CANDIDATES, FRAMES, repeats=50)


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ({"ptq": CANDIDATES["qat"], "qat": CANDIDATES["ptq"]}, "the board holds another ptq than the run"),
        ({"other": CANDIDATES["ptq"]}, "the board holds no other"),
    ],
)
def test_a_board_with_other_models_is_refused(bench: Bench, candidates: dict[str, Candidate], words: str) -> None:
    with pytest.raises(StaleError, match=words) as refusal:
        measure(bench.device, "virtual", candidates, FRAMES)
    assert refusal.value.hint == "quant flash RUN"


def test_a_board_without_models_is_refused() -> None:
    with Bench(VirtualBoard()) as empty, pytest.raises(StaleError, match="has no models it can run"):
        check_models(empty.device.models(), CANDIDATES)


def test_a_hash_that_is_not_the_models_is_refused() -> None:
    pack = build_pack(list(CANDIDATES.values()))
    board = VirtualBoard(pack, VirtualOptions(faults=Faults(false_model_hash=True)))
    with Bench(board, pack) as liar, pytest.raises(StaleError, match="another ptq"):
        check_models(liar.device.models(), CANDIDATES)


def test_continuous_actions_are_compared_as_they_leave_the_board() -> None:
    candidate = replace(quantize_policy(box_policy()), track="ptq")
    frames = random_observations(40, seed=2, ego=6)
    with Bench(VirtualBoard(), build_pack([candidate])) as opened:
        assert conform(opened.device, candidate, frames).differing == 0
        values = opened.device.decide("ptq", frames).values
    assert (values >= 0).all() and (values <= 1).all()


@pytest.mark.parametrize("peers", range(9))
def test_a_frame_to_time_has_the_peers_asked_for(peers: int) -> None:
    frame = frames_with(FRAMES, peers)
    assert frame.mask.shape == (1, 8) and frame.counts[0] == peers
    assert frame.mask[0, :peers].all()
    exact = np.flatnonzero(FRAMES.counts == peers)
    row = int(exact[0]) if len(exact) else int(FRAMES.counts.argmax())
    np.testing.assert_array_equal(frame.ego[0], FRAMES.ego[row])
    known = {peer.tobytes() for peer in FRAMES.peers[row][FRAMES.mask[row]]}
    assert all(peer.tobytes() in known for peer in frame.peers[0, :peers])
    assert not frame.peers[0, peers:].any()


def test_peers_can_be_timed_though_no_frame_has_any() -> None:
    alone = Observations(FRAMES.ego, FRAMES.peers, np.zeros_like(FRAMES.mask))
    frame = frames_with(alone, 5)
    assert frame.counts[0] == 5 and not frame.peers.any()
