"""What a run has found, read back: the part that its steps work on and its report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from quant.boards.report import DeviceReport
from quant.dataset import Dataset, Split
from quant.dataset.storage import Made
from quant.evaluation.evaluation import Evaluation
from quant.evaluation.second_opinion import SecondOpinion
from quant.evaluation.stress.results import Stress
from quant.observation.coverage import Coverage, coverage
from quant.policy import Policy
from quant.runners import ParityReport
from quant.tracks.candidate import Candidate
from quant.worlds.scenarios import ScenarioSet
from quant.worlds.world import World


@dataclass(frozen=True, eq=False, kw_only=True)
class Results:
    """Artifacts of a run that belong together.

    Attributes:
        policy: the float policy.
        dataset: the shared dataset.
        candidates: by track.
        evaluations: by track, and ``float``.
        parity: of the other engines, by track.
        devices: what boards showed of the candidates, by board.
        world, scenarios: None where driving was not tested.
        second: what SUMO showed of the same drivers; None where it was not asked.
        stress: the worst that was found over the declared range of the inputs; None where nobody looked.
    """

    policy: Policy
    dataset: Dataset
    candidates: Mapping[str, Candidate]
    evaluations: Mapping[str, Evaluation]
    parity: Mapping[str, ParityReport]
    devices: Mapping[str, DeviceReport]
    world: World | None
    scenarios: ScenarioSet | None
    second: SecondOpinion | None = None
    stress: Stress | None = None

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """How far each column was recorded, is declared, and can be represented by each candidate."""
        rows = np.concatenate([self.dataset.rows(split, Made.SEEN) for split in Split])
        ends = {name: (one.ego_input.ends, one.peer_input.ends) for name, one in self.candidates.items()}
        return coverage(self.dataset.contract, self.dataset.observations(rows), ends)

    def artifacts(self) -> dict[str, Any]:
        """All of them, by name: what else is made of the same run has them too."""
        return {field.name: getattr(self, field.name) for field in fields(Results)}
