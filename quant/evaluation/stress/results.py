"""What a stress test found, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from quant.errors import InputError, StaleError
from quant.evaluation.evaluation import rounded
from quant.evaluation.stress.found import BEYOND, FALSE, MISSED, WORST, Found, load_found
from quant.files import read_json, sha256, write_json
from quant.observation.contract import Contract

SCHEMA_VERSION = 2
COUNTS = ("frames", "missed", "false", "missed_unsettled", "false_unsettled", "saturated", "acts", "rests")
"""What a `Tally` counts."""
AGAIN = "stress it again: quant stress RUN"


@dataclass(frozen=True)
class Tally:
    """What was counted on some frames.

    Attributes:
        frames: how many.
        missed: float acts, is settled, and the candidate does not.
        false: the reverse.
        missed_unsettled, false_unsettled: likewise where float itself is not settled; no criterion counts them.
        saturated: frames in which the code of an input saturates.
        acts, rests: frames on which float acts, and on which it rests: without any, nothing can be missed or made up.
        worst: the largest difference, as a share of the range.
    """

    frames: int = 0
    missed: int = 0
    false: int = 0
    missed_unsettled: int = 0
    false_unsettled: int = 0
    saturated: int = 0
    acts: int = 0
    rests: int = 0
    worst: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Tally(**counts, worst=max(self.worst, other.worst))


@dataclass(frozen=True)
class TrackStress:
    """What one candidate showed.

    Attributes:
        track: its name.
        hashes: SHA-256 of both models and of what goes between them.
        cut: features of which it does not represent the whole declared range.
        groups: by group of frames, the one beyond the bounds among them.
        by_peers: by number of peers, of the frames within the bounds.
    """

    track: str
    hashes: Mapping[str, str]
    cut: tuple[str, ...]
    groups: Mapping[str, Tally]
    by_peers: tuple[Tally, ...]

    @property
    def within(self) -> Tally:
        """All frames within the bounds."""
        return sum((tally for group, tally in self.groups.items() if group != BEYOND), Tally())

    @property
    def saturated_share(self) -> float:
        """Of the frames within the bounds, those with an input whose code saturates."""
        return self.within.saturated / max(self.within.frames, 1)

    def to_json(self) -> dict[str, Any]:
        """All of it, with what follows from it."""
        return {
            "sha256": dict(self.hashes),
            "within": _tally_json(self.within),
            "saturated_share": rounded(self.saturated_share),
            "cut": list(self.cut),
            "groups": {group: _tally_json(tally) for group, tally in self.groups.items()},
            "by_peers": [_tally_json(tally) for tally in self.by_peers],
        }


@dataclass(frozen=True)
class Unsettled:
    """How much of the range float itself is too steep in for any int8.

    Attributes:
        sampled: low-discrepancy frames it was looked at on.
        on_a_side: those of them on which float acts or rests.
        left: those of these on which it leaves its side when every feature moves by up to one step of an int8.
    """

    sampled: int
    on_a_side: int
    left: int

    @property
    def share(self) -> float:
        """Of the frames on a side, those on which it does not stay there."""
        return self.left / max(self.on_a_side, 1)


@dataclass(frozen=True, eq=False)
class Stress:
    """What a stress test found.

    Attributes:
        frames: asked for, within the bounds.
        seed: of all that was drawn.
        span: what a difference is a share of, for each value of the head.
        hashes: SHA-256 of policy, dataset and the observation's contract.
        undeclared: columns with a bound that nobody declared.
        unsettled: of the float policy.
        tracks: by track.
        found: the frames that were kept.
        contract: names and units of the features.
    """

    frames: int
    seed: int
    span: tuple[float, ...]
    hashes: Mapping[str, str]
    undeclared: tuple[str, ...]
    unsettled: Unsettled
    tracks: Mapping[str, TrackStress]
    found: Found
    contract: Contract

    @cached_property
    def worst(self) -> dict[str, Found]:
        """The one worst frame of each track."""
        return {track: self.found.of(track, WORST).highest(1) for track in self.tracks}

    def to_json(self) -> dict[str, Any]:
        """The document of ``stress.json``; what was found stands beside it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "frames": self.frames,
            "seed": self.seed,
            "span": [rounded(value) for value in self.span],
            "sha256": dict(self.hashes),
            "found_sha256": sha256(self.found.content()),
            "undeclared": list(self.undeclared),
            "unsettled": asdict(self.unsettled) | {"share": rounded(self.unsettled.share)},
            "tracks": {
                track: one.to_json() | {"worst": frame_json(self.contract, self.worst[track])}
                for track, one in self.tracks.items()
            },
        }

    def save(self, path: Path, frames: Path) -> None:
        """Writes the document, and the frames beside it."""
        self.found.save(frames)
        write_json(path, self.to_json())


def frame_json(contract: Contract, found: Found) -> dict[str, Any] | None:
    """The first frame in words and numbers; None where there is none."""
    if not len(found):
        return None
    seen = found.observations[:1]
    peers = seen.peers[0][seen.mask[0]]
    names = [one.name for one in contract.peers]
    return {
        "deviation": rounded(float(found.deviation[0])),
        "group": str(found.group[0]),
        "peers": len(peers),
        "float": [rounded(float(value)) for value in found.reference[0]],
        "candidate": [rounded(float(value)) for value in found.candidate[0]],
        "ego": {
            name: rounded(float(value)) for name, value in zip(contract.names(peers=False), seen.ego[0], strict=True)
        },
        "of_peers": [{name: rounded(float(value)) for name, value in zip(names, peer, strict=True)} for peer in peers],
    }


def load_stress(path: Path, frames: Path, contract: Contract) -> Stress:
    """Reads what `Stress.save` wrote.

    Args:
        path: the document.
        frames: the frames that were kept.
        contract: of the run's dataset.

    Raises:
        InputError: not such a file, another schema version, a missing or wrong key, or figures that do not follow from
            the others.
        StaleError: the frames are others than the document's, or the contract is.
    """
    document = read_json(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"schema version {version}", where=path, expected=f"version {SCHEMA_VERSION}", hint=AGAIN)
    found = load_found(frames)
    try:
        stress = Stress(
            int(document["frames"]),
            int(document["seed"]),
            tuple(map(float, document["span"])),
            {name: str(digest) for name, digest in document["sha256"].items()},
            tuple(map(str, document["undeclared"])),
            Unsettled(**{key: int(document["unsettled"][key]) for key in ("sampled", "on_a_side", "left")}),
            {str(track): _track(str(track), one) for track, one in document["tracks"].items()},
            found,
            contract,
        )
        if sha256(found.content()) != document["found_sha256"]:
            raise StaleError("holds other frames than were found", where=frames, hint=AGAIN)
        if stress.hashes["contract"] != contract.digest:
            raise StaleError("is of another observation contract than the run's", where=path, hint=AGAIN)
        same = stress.to_json() == document
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the stress test lacks or garbles {error}", where=path, hint=AGAIN) from error
    if not same:
        raise InputError("holds unknown keys, or figures that do not follow from others", where=path, hint=AGAIN)
    for track, one in stress.tracks.items():
        _check_kept(one, found.of(track), path)
    return stress


def _check_kept(one: TrackStress, kept: Found, path: Path) -> None:
    """Holds what was counted, in all, by group and by number of peers, against the frames that were kept of it.

    Of every kind some are kept where there are any, and the worst always is.

    Raises:
        InputError: they contradict one another.
    """
    peers = kept.observations.counts
    parts = [("all", one.within, np.ones(len(kept), np.bool_))]
    parts += [(group, tally, np.asarray(kept.group == group)) for group, tally in one.groups.items() if group != BEYOND]
    parts += [(f"{count} peers", tally, np.asarray(peers == count)) for count, tally in enumerate(one.by_peers)]
    for name, tally, rows in parts:
        whole = name == "all"
        for kind, settled, counted in (
            (MISSED, True, tally.missed),
            (MISSED, False, tally.missed_unsettled),
            (FALSE, True, tally.false),
            (FALSE, False, tally.false_unsettled),
        ):
            seen = int((rows & (kept.kind == kind) & (kept.settled == settled)).sum())
            # Those that count are kept before those that do not, so only they are sure to be there.
            if seen > counted or (whole and settled and bool(seen) != bool(counted)):
                _contradicts(f"{one.track}, {name}: {counted} {kind}, {seen} kept", path)
        worst = rounded(float(kept.deviation[rows].max(initial=0.0)))
        if worst > tally.worst or (whole and worst != tally.worst):
            _contradicts(f"{one.track}, {name}: at worst {tally.worst}, {worst} kept", path)


def _contradicts(words: str, path: Path) -> NoReturn:
    raise InputError(f"contradicts the frames that were kept: {words}", where=path, hint=AGAIN)


def _track(track: str, document: Mapping[str, Any]) -> TrackStress:
    return TrackStress(
        track,
        {part: str(digest) for part, digest in document["sha256"].items()},
        tuple(map(str, document["cut"])),
        {str(group): _tally(tally) for group, tally in document["groups"].items()},
        tuple(_tally(tally) for tally in document["by_peers"]),
    )


def _tally(document: Mapping[str, Any]) -> Tally:
    counts = {name: document[name] for name in COUNTS}
    if not all(type(value) is int and value >= 0 for value in counts.values()):
        raise ValueError(f"a count: {counts}")
    return Tally(**counts, worst=float(document["worst"]))


def _tally_json(tally: Tally) -> dict[str, Any]:
    return asdict(tally) | {"worst": rounded(tally.worst)}


def tallies(counts: Any, worst: Any) -> tuple[Tally, ...]:
    """(R, 8) counts and (R,) worst deviations as tallies."""
    named = (dict(zip(COUNTS, map(int, row), strict=True)) for row in counts)
    return tuple(Tally(**row, worst=rounded(float(one))) for row, one in zip(named, worst, strict=True))


def total(parts: Sequence[Tally]) -> Tally:
    """Of all of them."""
    return sum(parts, Tally())
