"""The ways from a policy to two INT8 models, by name: what a run may make, and where each is made.

Importing this costs nothing: whoever only names tracks, as a help text does, loads none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, cast

from quant.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from quant.policy.policy import Policy
    from quant.tracks.job import Job, Made

PTQ, QAT, GPTQ, PER_TENSOR, RESIDUAL, INT16 = "ptq", "qat", "ptq-gptq", "ptq-gptq-pt", "ptq-residual", "int16x8"


@dataclass(frozen=True)
class Track:
    """A way from a policy to two INT8 models.

    Attributes:
        name: as users write it, in file names too.
        makes: what it makes, as the help of its command says it.
        maker: ``module:function`` from `Job` to `Made`.
        refusal: ``module:function`` that raises InputError where it can make nothing of a policy; None: it always can.
        trains: whether it takes optimizer steps.
    """

    name: str
    makes: str
    maker: str
    refusal: str | None = None
    trains: bool = False

    def make(self, job: Job) -> Made:
        """Makes the candidate."""
        return cast("Made", resolve_name(self.maker)(job))

    def refuse(self, policy: Policy) -> None:
        """Raises InputError where it cannot make models of this policy."""
        if self.refusal is not None:
            resolve_name(self.refusal)(policy)


TRACKS = {
    track.name: track
    for track in (
        Track(PTQ, "the PTQ candidate of a run", "quant.tracks.ptq:make"),
        Track(QAT, "the QAT candidate of a run, starting from PTQ's ranges", "quant.tracks.qat:make", trains=True),
        Track(
            GPTQ,
            "the candidate with weights rounded by second order, starting from PTQ's plan",
            "quant.tracks.gptq:make",
        ),
        Track(
            PER_TENSOR,
            "the candidate of ptq-gptq with one scale for the weights of a layer",
            "quant.tracks.gptq:make_per_tensor",
        ),
        Track(
            RESIDUAL,
            "the candidate of ptq-gptq whose features bring what their rounding left over",
            "quant.tracks.gptq:make_residual",
        ),
        Track(
            INT16,
            "the candidate with int16 activations and int8 weights",
            "quant.tracks.int16:make",
            refusal="quant.tracks.int16:refuse",
        ),
    )
}
"""By name, in the order in which runs make and list them."""
DEFAULT_TRACKS = (PTQ, QAT)
"""What a run makes where nothing is said."""


def check_tracks(tracks: Collection[str], policy: Policy) -> None:
    """Finds out before the work whether every track can make models of this policy.

    Raises:
        InputError: one cannot.
    """
    for track in tracks:
        TRACKS[track].refuse(policy)


def parse_tracks(text: str) -> tuple[str, ...]:
    """``ptq,ptq-gptq`` -> the tracks, in the registry's order.

    Raises:
        InputError: none is named, one twice, or one that does not exist.
    """
    asked = [name.strip() for name in text.split(",")]
    if len(set(asked)) < len(asked) or not set(asked) <= set(TRACKS):
        unknown = (did_you_mean(name, TRACKS) for name in asked if name not in TRACKS)
        raise InputError(
            f"not a list of tracks: {text}",
            where="--tracks",
            expected=f"each at most once, of {', '.join(TRACKS)}",
            hint=next(filter(None, unknown), None),
        )
    return tuple(name for name in TRACKS if name in asked)
