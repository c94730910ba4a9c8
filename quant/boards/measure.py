"""The device stage: lets a board decide and time itself, and reports what it showed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quant.boards.conformance import Conformance, compare
from quant.boards.device import Device
from quant.boards.report import DeviceReport, Identity, Memory, ModelReport, PeerTimes, TrackReport
from quant.errors import LinkError, StaleError
from quant.files import Progress, no_progress
from quant.policy import Observations
from quant.runners import Int8Runner
from quant.tracks.candidate import Candidate
from quant.wire.messages import ModelsReply, PartInfo, SlotInfo, StatsReply
from quant.wire.protocol import PackStatus

WARMUP = 20
REPEATS = 200
"""Timed decisions for each number of peers: enough for a 99th percentile that is not the maximum."""


def measure(
    device: Device,
    name: str,
    candidates: Mapping[str, Candidate],
    frames: Observations,
    *,
    repeats: int = REPEATS,
    progress: Progress = no_progress,
) -> DeviceReport:
    """Everything a verdict needs from a board.

    Args:
        device: runs a pack of these candidates.
        name: of the board, as it was asked for.
        candidates: by track.
        frames: on which its decisions are compared with the host's; times are taken on frames like them.
        repeats: timed decisions for each number of peers.
        progress: told how many of the candidates' peer counts and frames are done.

    Raises:
        StaleError: the board runs other models.
        LinkError: it does not answer, or restarted meanwhile.
    """
    models = device.models()
    check_models(models, candidates)
    slots = {slot.track: slot for slot in models.slots}
    counts = {track: candidate.max_peers + 1 for track, candidate in candidates.items()}
    total, done = sum(counts.values()) + len(candidates), 0
    before = device.stats()
    tracks = {}
    for track, candidate in candidates.items():
        conformance = conform(device, candidate, frames)
        done += 1
        progress(done, total)
        times = []
        for n in range(counts[track]):
            times.append(time_peers(device, track, frames_with(frames, n), repeats))
            done += 1
            progress(done, total)
        tracks[track] = TrackReport(_models(slots[track]), conformance, WARMUP, repeats, tuple(times))
    after, hello = device.stats(), device.hello()
    decisions = len(candidates) * len(frames) + sum(counts.values()) * (WARMUP + repeats)
    # Repeated requests bridge a restart, but what starts anew in mid-drive is no proof, and neither is its heap.
    if after.decisions - before.decisions < decisions:
        raise LinkError(
            f"the board restarted while it was measured: {hello.reset_reason}",
            where=device.link.name,
            expected=f"{decisions} decisions without a restart",
            hint="its log says why; a supply that is too weak is the usual reason",
        )
    return DeviceReport(Identity.of(name, hello), models.sha256, tracks, _memory(after))


def check_models(models: ModelsReply, candidates: Mapping[str, Candidate]) -> None:
    """The board holds exactly these candidates.

    Raises:
        StaleError: it does not; says which differs.
    """
    if models.status is not PackStatus.OK:
        raise StaleError(f"the board has no models it can run: {models.words}", hint="quant flash RUN")
    held = {slot.track: {"peer_encoder": slot.peer_encoder, "policy_head": slot.policy_head} for slot in models.slots}
    for track, candidate in candidates.items():
        found = {part: info.sha256 for part, info in held.get(track, {}).items()}
        if found != candidate.hashes:
            raise StaleError(
                f"the board holds another {track} than the run" if found else f"the board holds no {track}",
                expected=", ".join(f"{part} {digest[:12]}" for part, digest in candidate.hashes.items()),
                hint="quant flash RUN",
            )


def conform(device: Device, candidate: Candidate, frames: Observations) -> Conformance:
    """The board's decisions on N frames against the host's TFLM arithmetic."""
    runner = Int8Runner(candidate)
    board = device.decide(candidate.track, frames, interfaces=True)
    return compare(board.decision, board.values, runner.decide(frames), runner.values(frames))


def time_peers(device: Device, track: str, frame: Observations, repeats: int = REPEATS) -> PeerTimes:
    """Times of a decision on one frame, of the board's own clock."""
    return PeerTimes(int(frame.mask.sum()), device.bench(track, frame, WARMUP, repeats))


def frames_with(frames: Observations, n: int) -> Observations:
    """One frame with exactly ``n`` peers: the first that has them, else the fullest one, its peers repeated.

    Peers stand in the first ``n`` slots.
    """
    present = frames.mask.sum(axis=1)
    exact = np.flatnonzero(present == n)
    row = int(exact[0]) if len(exact) else int(present.argmax())
    peers = frames.peers[row][frames.mask[row]]
    filled = np.zeros_like(frames.peers[:1])
    if n and len(peers):
        filled[0, :n] = np.resize(peers, (n, peers.shape[1]))
    mask = (np.arange(frames.mask.shape[1]) < n)[None]
    return Observations(frames.ego[row : row + 1], filled, mask)


def _models(slot: SlotInfo) -> dict[str, ModelReport]:
    def report(info: PartInfo) -> ModelReport:
        return ModelReport(info.size, info.sha256, info.arena_used, info.arena_size, info.operators)

    return {"peer_encoder": report(slot.peer_encoder), "policy_head": report(slot.policy_head)}


def _memory(stats: StatsReply) -> Memory:
    return Memory(
        heap_free=stats.heap_free,
        heap_minimum=stats.heap_minimum,
        stack_left=stats.stack_left,
        app_bytes=stats.app_bytes,
        app_partition=stats.app_partition,
        models_bytes=stats.models_bytes,
        models_partition=stats.models_partition,
        temperature=stats.temperature,
    )
