"""What a report of a run is made of: the run's parts, and the figures of them that no file of the run holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.acceptance.comparison import Comparison
from quant.acceptance.decision import Verdict
from quant.anatomy import Anatomy, dissect
from quant.dataset import Split
from quant.dataset.storage import Made
from quant.errors import InputError
from quant.evaluation.evaluation import FLOAT
from quant.observation.observations import Observations
from quant.report.board_tests import BoardTests
from quant.report.results import Results
from quant.runners import FloatRunner, Int8Runner
from quant.runners.flatbuffer import Quantized
from quant.runners.runner import Decision
from quant.tracks.candidate import Affine
from quant.tracks.ptq import rewritings

Curve = tuple[tuple[int, float, float], ...]
"""(step, training loss, simulated error) of each point; a loss that is not known is NaN."""
WORST = 5
"""Worst frames looked at, as `quant explain` does."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Material(Results):
    """A finished run, as a report needs it.

    Attributes:
        settings: the content of ``settings.json``.
        manifest: the content of ``manifest.json``.
        verdict: as it stands in ``winner.json``.
        curves: training curves by track.
        origins: (N,) of every held-out frame: ``recorded``, ``rollout`` or ``augmented``.
        tests: figures that the tests of each board recorded, by board.
        baseline: the run held against the accepted one; None where there is none.
    """

    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    verdict: Verdict
    curves: Mapping[str, Curve]
    origins: NDArray[Any]
    tests: Mapping[str, BoardTests] = field(default_factory=dict)
    baseline: Comparison | None = None

    @property
    def tracks(self) -> tuple[str, ...]:
        """The float policy and the candidates, in the order in which every table and picture has them."""
        return (FLOAT, *self.candidates)

    @cached_property
    def anatomies(self) -> Mapping[str, Anatomy]:
        """Where the error of each candidate comes from, by track; without those that cannot be taken apart."""
        return {track: one for track, one in self._dissected.items() if isinstance(one, Anatomy)}

    @property
    def unexplained(self) -> Mapping[str, str]:
        """Why a candidate's error cannot be taken apart, by track."""
        return {track: one for track, one in self._dissected.items() if isinstance(one, str)}

    @cached_property
    def _dissected(self) -> dict[str, Anatomy | str]:
        rows = self.dataset.rows(Split.HELD_OUT)
        frames = self.dataset.observations(rows)
        known = rewritings(self.policy, self.dataset)
        how: dict[str, Any] = {"rewritten": known, "origins": self.origins, "rows": rows, "worst": WORST}
        how["contract"] = self.dataset.contract
        found: dict[str, Anatomy | str] = {}
        for track, candidate in self.candidates.items():
            try:
                found[track] = dissect(self.policy, candidate, frames, **how)
            except InputError as error:
                found[track] = error.what
        return found

    @cached_property
    def frames(self) -> Frames:
        """What the float policy and every candidate decide on the held-out frames that were seen and not made."""
        rows = self.dataset.rows(Split.HELD_OUT)
        seen = self.dataset.column("made")[rows] == Made.SEEN
        rows = rows[seen] if seen.any() else rows
        observations = self.dataset.observations(rows)
        space = self.policy.action_space
        actions = {FLOAT: space.decide(FloatRunner(self.policy).values(observations))}
        interfaces = {}
        for track, candidate in self.candidates.items():
            runner = Int8Runner(candidate)
            actions[track] = space.decide(runner.values(observations))
            interfaces[track] = interfaces_of(runner, observations)
        return Frames(len(rows), actions, interfaces)


@dataclass(frozen=True, eq=False)
class Frames:
    """Held-out frames, decided.

    Attributes:
        n: frames.
        actions: (N,) int64 of a Discrete or (N, A) float32 of a Box, by track, ``float`` among them.
        interfaces: what the codes between the parts of each candidate are used for, by track.
    """

    n: int
    actions: Mapping[str, NDArray[Any]]
    interfaces: Mapping[str, tuple[Interface, ...]]


@dataclass(frozen=True, eq=False)
class Interface:
    """The integer codes of one interface on the held-out frames.

    Attributes:
        name: of the interface.
        codes: (K,) how often each code occurs, from the lowest to the highest of the type.
        first: the lowest code of the type, as -128.
        real: what the lowest and the highest code stand for; None where every feature has its own scale.
        zero: the code of 0; None likewise.
    """

    name: str
    codes: NDArray[np.int64]
    first: int
    real: tuple[float, float] | None
    zero: int | None

    @property
    def at_lowest(self) -> float:
        """Share of the values that have the lowest code."""
        return float(self.codes[0] / max(self.codes.sum(), 1))

    @property
    def at_highest(self) -> float:
        """Share of the values that have the highest code."""
        return float(self.codes[-1] / max(self.codes.sum(), 1))

    @property
    def used(self) -> int:
        """How many different codes occur."""
        return int(np.count_nonzero(self.codes))


def interfaces_of(runner: Int8Runner, observations: Observations) -> tuple[Interface, ...]:
    """The codes of a candidate's interfaces; those of absent peers are padding and are not counted."""
    decision: Decision = runner.decide(observations)
    encoder, head = runner.engine.model("peer_encoder"), runner.engine.model("policy_head")
    width = decision.pooled.shape[1]
    return (
        *_codes("peer features", runner.candidate.peer_input, decision.peer_inputs[observations.mask]),
        _interface("embeddings", decision.embeddings[observations.mask], encoder.output),
        _interface("pooled", decision.pooled, head.input),
        *_codes("ego features", runner.candidate.ego_input, decision.head_inputs[:, width:]),
        _interface("output", decision.outputs, head.output),
    )


def _codes(name: str, affine: Affine, codes: NDArray[Any]) -> Sequence[Interface]:
    """Of the features of an input, and, apart, of their residuals where it has them."""
    features = len(affine.gain)
    own = [_interface(name, codes[:, :features])]
    return [*own, _interface(f"{name}, residuals", codes[:, features:])] if affine.residual else own


def _interface(name: str, codes: NDArray[Any], tensor: Quantized | None = None) -> Interface:
    kind = np.iinfo(codes.dtype)
    counts = np.bincount(codes.ravel().astype(np.int64) - kind.min, minlength=kind.max - kind.min + 1)
    if tensor is None:
        return Interface(name, counts, kind.min, None, None)
    real = [float(tensor.scale) * (code - int(tensor.zero_point)) for code in (kind.min, kind.max)]
    return Interface(name, counts, kind.min, (real[0], real[1]), int(tensor.zero_point))
