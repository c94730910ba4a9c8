"""What came of the episodes of one actor on one slice."""

from __future__ import annotations

from dataclasses import dataclass

from quant.evaluation.statistics import Bits, Estimate, proportion


@dataclass(frozen=True, eq=False)
class SliceOutcome:
    """One actor on one slice of the scenarios.

    Attributes:
        name: of the slice.
        success: (n,) no collision and no more needless braking than the world allows.
        collision: (n,); None where the world does not say.
        needless: mean speed lost to needless braking, m/s an episode; None where the world does not say.
        reward: mean reward of an episode.
    """

    name: str
    success: Bits
    collision: Bits | None
    needless: Estimate | None
    reward: Estimate

    @property
    def n(self) -> int:
        """Episodes."""
        return len(self.success)

    @property
    def success_rate(self) -> Estimate:
        """Share of successful episodes."""
        return proportion(int(self.success.sum()), self.n)

    @property
    def collision_rate(self) -> Estimate | None:
        """Share of episodes with a collision; None where the world does not say."""
        return None if self.collision is None else proportion(int(self.collision.sum()), self.n)
