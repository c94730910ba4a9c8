"""Denser and harder scenes than a recording holds, made of its own frames.

Recorded drives have few peers and little hard braking; an INT8 model calibrated on them alone clips what it was built
for. An augmented frame keeps a recorded ego, takes its peers from the recording's own peers (its own first), and, where
the recording lacks it, has one of them brake hard. Features of the ego that are functions of the peers (their number,
the lowest acceleration, the largest closing speed) are recomputed, and so are their copies in the older frames of a
stack, so that the frame is consistent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quant.observation.contract import Contract
from quant.observation.functions import ACCELERATION, PeerFunction, functions_of
from quant.observation.functions import REL_SPEED as REL_SPEED_NAME
from quant.observation.observations import F32, Mask, Observations
from quant.observation.presets import PEERS

PEER_FEATURES = ("rel_x/100 m", "rel_y/100 m", "rel_speed/30 m/s", "rel_heading/pi", "accel/10 m/s2", "age/500 ms")
"""The field's peer features and their normalization; hard braking is augmented only where a peer has these six."""
REL_SPEED, ACCEL = 2, 4

HARD_BRAKING = -0.45
"""Normalized acceleration below which a peer brakes hard: 4.5 m/s2."""
FULL_BRAKING = -0.9
"""The hardest braking that is augmented: 9 m/s2, dry asphalt."""
ENOUGH_HARD_BRAKING = 0.05
"""Frames with a hard-braking peer that a split needs, as a share of its recorded frames."""
JITTER = 0.02
"""Standard deviation of the noise on a peer put into another frame, as a share of the feature's range."""


def derived_columns(observations: Observations) -> dict[int, str]:
    """Ego columns that are, in every frame, a known function of the peers: ``{column: name}``."""
    known = known_functions(observations.peers.shape[2])
    found: dict[int, str] = {}
    for name, function in known.items():
        value = function.of(observations.peers, observations.mask)
        for column in range(observations.ego.shape[1]):
            # A constant column fits by chance; then there is nothing to learn from it either.
            if np.ptp(value) > 0 and np.allclose(observations.ego[:, column], value, atol=1e-5):
                found.setdefault(column, name)
    return dict(sorted(found.items()))


def known_functions(peer_size: int) -> dict[str, PeerFunction]:
    """Functions of the set of peers that the field's ego states carry."""
    names = [column.name for column in PEERS]
    return functions_of(names if peer_size == len(names) else [""] * peer_size)


def hard_braking(observations: Observations) -> NDArray[np.bool_]:
    """(N,) True where a peer present brakes harder than `HARD_BRAKING`; all False for other peer features."""
    if observations.peers.shape[2] != len(PEER_FEATURES):
        return np.zeros(len(observations), bool)
    return np.asarray((observations.mask & (observations.peers[:, :, ACCEL] < HARD_BRAKING)).any(axis=1))


def augment(
    observations: Observations, derived: Mapping[int, str], seed: int, contract: Contract | None = None
) -> tuple[Observations, NDArray[np.int64]]:
    """Adds frames until each peer count 0..P holds 1/(P+1) as many frames as were recorded, and enough brake hard.

    Where fewer than `ENOUGH_HARD_BRAKING` of the recorded frames have a hard-braking peer, half of the frames added for
    their peer count get one; if they are still too few, recorded frames with peers are added in which one brakes hard.
    Frames without a single peer in them have nothing to make peers of: then nothing is added.

    Args:
        observations: recorded frames of one split.
        derived: columns of the ego to recompute, from `derived_columns`.
        seed: of the generator.
        contract: of the observation; where it has a stack, the older frames' copies of derived columns follow too.

    Returns:
        the added frames and, for each, the recorded frame (row of ``observations``) its ego comes from.
    """
    if not observations.mask.any():
        return observations[:0], np.zeros(0, np.int64)
    slots = observations.mask.shape[1]
    quota = max(len(observations) // (slots + 1), 1)
    present = np.bincount(observations.counts, minlength=slots + 1)
    counts = np.repeat(np.arange(slots + 1), np.maximum(quota - present, 0))
    generator = np.random.default_rng(seed)
    base = generator.integers(len(observations), size=len(counts))
    peers, mask = _peers(observations, base, counts, generator)
    if observations.peers.shape[2] == len(PEER_FEATURES) and hard_braking(observations).mean() < ENOUGH_HARD_BRAKING:
        _brake_hard(peers, counts, (counts > 0) & (generator.random(len(counts)) < 0.5), generator)
    added = Observations(observations.ego[base], peers, mask)
    missing = _missing_hard_braking(observations, added)
    if missing:
        more, more_base = _harder(observations, missing, generator)
        added, base = Observations.concatenate([added, more]), np.concatenate([base, more_base])
    functions = known_functions(observations.peers.shape[2])
    for column, name in derived.items():
        added.ego[:, column] = functions[name].of(added.peers, added.mask)
    if contract is not None:
        _follow(contract, observations, base, added)
    return added, base


def _follow(contract: Contract, observations: Observations, base: NDArray[np.int64], added: Observations) -> None:
    """Copies, in the older frames of a stack, of what is a function of the peers; in place.

    The strangers of a frame were there before too, moving as they move now. Its own peers were as the recorded copies
    say where it kept them all; of those it kept only some of, these moved likewise.
    """
    functions, sources = contract.functions, contract.sources
    own = np.minimum(observations.counts[base], added.counts)
    slots = np.arange(contract.max_peers)
    kept_all = added.counts >= observations.counts[base]
    mine = slots < own[:, None]
    for column, lag in enumerate(contract.lags):
        function = functions.get(sources[column])
        if lag == 0 or function is None:
            continue
        peers = _moved_back(contract, added.peers, lag)
        recorded = observations.ego[base, column]
        before = np.where(kept_all, recorded, function.of(peers, added.mask & mine))
        low, high = (ends[column] for ends in contract.bounds(peers=False))
        added.ego[:, column] = np.clip(function.combine(before, function.of(peers, added.mask & ~mine)), low, high)


def _moved_back(contract: Contract, peers: F32, lag: int) -> F32:
    """The peers ``lag`` decisions earlier, had they kept their acceleration: their relative speed was another."""
    acceleration, speed = (contract.index_of(name, peers=True) for name in (ACCELERATION, REL_SPEED_NAME))
    if acceleration is None or speed is None or contract.period_ms is None:
        return peers
    scales = contract.peers[acceleration].scale or 1.0, contract.peers[speed].scale or 1.0
    moved = peers.copy()
    moved[..., speed] -= np.float32(lag * contract.period_ms / 1000 * scales[0] / scales[1]) * peers[..., acceleration]
    return moved


def _missing_hard_braking(observations: Observations, added: Observations) -> int:
    """Frames with a hard-braking peer that recorded and added ones together lack; 0 for other peer features."""
    if observations.peers.shape[2] != len(PEER_FEATURES):
        return 0
    found = hard_braking(observations).sum() + hard_braking(added).sum()
    return max(math.ceil(ENOUGH_HARD_BRAKING * len(observations)) - int(found), 0)


def _harder(
    observations: Observations, frames: int, generator: np.random.Generator
) -> tuple[Observations, NDArray[np.int64]]:
    """That many recorded frames with peers, one of which now brakes hard, and their rows; each once if they suffice."""
    candidates = np.flatnonzero(observations.mask.any(axis=1))
    base = generator.choice(candidates, frames, replace=frames > len(candidates)).astype(np.int64)
    counts = observations.counts[base]
    peers, mask = _peers(observations, base, counts, generator)
    _brake_hard(peers, counts, np.ones(frames, bool), generator)
    return Observations(observations.ego[base], peers, mask), base


def _peers(
    observations: Observations, base: NDArray[np.int64], counts: NDArray[np.int64], generator: np.random.Generator
) -> tuple[F32, Mask]:
    """The base frame's own peers first, then peers of other frames with a little noise; ``counts`` of them."""
    rows, slots = len(base), observations.mask.shape[1]
    everyone = observations.peers[observations.mask]
    mask = np.arange(slots) < counts[:, None]
    strangers = everyone[generator.integers(len(everyone), size=(rows, slots))]
    noise = (
        generator.standard_normal(strangers.shape).astype(np.float32) * np.float32(JITTER) * np.ptp(everyone, axis=0)
    )
    low, high = everyone.min(axis=0), everyone.max(axis=0)
    strangers = np.clip(
        strangers + noise, low - np.float32(JITTER) * (high - low), high + np.float32(JITTER) * (high - low)
    )
    # Peers present come first, so that the base frame's own fill the first slots.
    order = np.argsort(~observations.mask[base], axis=1, kind="stable")[:, :, None]
    own = np.take_along_axis(observations.peers[base], order, axis=1)
    is_own = np.arange(slots) < observations.counts[base][:, None]
    peers = np.where(is_own[:, :, None], own, strangers)
    return np.where(mask[:, :, None], peers, np.float32(0)).astype(np.float32), mask


def _brake_hard(
    peers: F32, counts: NDArray[np.int64], chosen: NDArray[np.bool_], generator: np.random.Generator
) -> None:
    """In the chosen frames, one of the first ``counts`` peers brakes hard and closes in; in place."""
    rows = np.flatnonzero(chosen)
    who = generator.integers(counts[rows])
    peers[rows, who, ACCEL] = generator.uniform(FULL_BRAKING, HARD_BRAKING, len(rows)).astype(np.float32)
    # One second of that braking at the most has gone into the relative speed (/ 30 m/s; acceleration / 10 m/s2).
    closing = generator.uniform(0, 1, len(rows)).astype(np.float32) * peers[rows, who, ACCEL] * np.float32(10 / 30)
    peers[rows, who, REL_SPEED] += closing
