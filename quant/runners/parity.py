"""How far the engines differ on the same candidate and the same observations: measured, not assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import InputError
from quant.observation.observations import Observations
from quant.runners.engines import EngineName
from quant.runners.runner import Decision, Int8Runner
from quant.tracks.candidate import Candidate, Codes


@dataclass(frozen=True)
class Difference:
    """Output codes of one engine against TFLM's arithmetic.

    Attributes:
        outputs: values compared.
        differing: how many differ.
        max_lsb: the largest difference, in steps.
    """

    outputs: int
    differing: int
    max_lsb: int

    @property
    def fraction(self) -> float:
        """Of the outputs that differ, 0 to 1."""
        return self.differing / self.outputs if self.outputs else 0.0

    @staticmethod
    def between(ours: Codes, theirs: Codes) -> Difference:
        """Compares two arrays of equal shape."""
        distance = np.abs(ours.astype(np.int32) - theirs)
        return Difference(ours.size, int(np.count_nonzero(distance)), int(distance.max(initial=0)))


@dataclass(frozen=True)
class EngineParity:
    """One engine against TFLM's arithmetic in NumPy.

    Attributes:
        peer_encoder: embeddings of the same peer inputs.
        policy_head: outputs for the same head inputs.
        end_to_end: outputs of whole decisions, each engine with its own embeddings.
        decisions_differing: decisions whose action is another one: another argmax, or any other byte of a Box.
    """

    peer_encoder: Difference
    policy_head: Difference
    end_to_end: Difference
    decisions_differing: int


@dataclass(frozen=True)
class ParityReport:
    """Parity of the other engines with the arithmetic verdicts are computed in.

    Attributes:
        decisions: N.
        tflite_micro: has to be equal in every byte; see :attr:`conforms`.
        litert: differs, because LiteRT rounds once where TFLM rounds twice.
    """

    decisions: int
    tflite_micro: EngineParity
    litert: EngineParity

    @property
    def conforms(self) -> bool:
        """Whether NumPy and TFLite-Micro agree bit for bit."""
        exact = self.tflite_micro
        return exact.peer_encoder.differing == exact.policy_head.differing == exact.end_to_end.differing == 0


def parity_from_json(document: Any, where: object = "parity") -> ParityReport:
    """The inverse of `dataclasses.asdict`.

    Raises:
        InputError: a key is missing or a value is not a number.
    """
    try:
        engines = {name: _engine_from_json(document[name]) for name in ("tflite_micro", "litert")}
        return ParityReport(decisions=int(document["decisions"]), **engines)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the parity report lacks or garbles {error}", where=where, hint="run quant evaluate again"
        ) from error


def _engine_from_json(value: Any) -> EngineParity:
    parts = {name: Difference(**value[name]) for name in ("peer_encoder", "policy_head", "end_to_end")}
    return EngineParity(decisions_differing=int(value["decisions_differing"]), **parts)


def parity(candidate: Candidate, observations: Observations) -> ParityReport:
    """Runs all three engines on the same observations. TFLite-Micro takes about 10 microseconds a decision.

    Raises:
        InputError: a sub-model is damaged or unsupported, or the observations are not of the candidate's sizes.
    """
    ours = Int8Runner(candidate, "numpy")
    decision = ours.decide(observations)
    return ParityReport(
        len(observations),
        _against(ours, decision, "tflite_micro", observations),
        _against(ours, decision, "litert", observations),
    )


def _against(ours: Int8Runner, decision: Decision, name: EngineName, observations: Observations) -> EngineParity:
    theirs = Int8Runner(ours.candidate, name)
    mask = observations.mask
    embeddings = theirs.engine.invoke("peer_encoder", decision.peer_inputs[mask])
    outputs = theirs.engine.invoke("policy_head", decision.head_inputs)
    end_to_end = theirs.decide(observations).outputs
    return EngineParity(
        Difference.between(decision.embeddings[mask], embeddings),
        Difference.between(decision.outputs, outputs),
        Difference.between(decision.outputs, end_to_end),
        int(np.count_nonzero(_actions(ours, decision.outputs) != _actions(ours, end_to_end))),
    )


def _actions(runner: Int8Runner, outputs: Codes) -> NDArray[np.object_]:
    """(N,) the action of each decision, as something that compares by value."""
    real = runner.engine.model("policy_head").output.dequantize(outputs)
    actions = np.asarray(runner.action_space.decide(real)).reshape(len(outputs), -1)
    return np.array([row.tobytes() for row in actions], dtype=object)
