"""A run as the steps and the pages know it: its artifacts, read and checked, and the verdict on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant.acceptance.assessment import assess
from quant.acceptance.decision import Verdict
from quant.acceptance.decision import decide as decide_between
from quant.acceptance.limits import Limits
from quant.boards.report import DeviceReport
from quant.dataset import Dataset
from quant.dataset.storage import Made
from quant.evaluation.evaluation import FLOAT, Evaluation
from quant.evaluation.open_loop import AUGMENTED, FILLED, RECORDED, ROLLOUT
from quant.report.results import Results
from quant.runs.settings import Settings
from quant.tracks.candidate import Candidate


@dataclass(frozen=True, eq=False, kw_only=True)
class Run(Results):
    """A finished run, read back and checked.

    Attributes:
        folder: where it is.
        settings: what was asked for.
    """

    folder: Path
    settings: Settings

    def verdict(self, limits: Limits) -> Verdict:
        """The decision under these limits, with what the dataset leaves open."""
        verdict = verdict_of(self.candidates, self.evaluations, limits, self.devices.values())
        unvaried = self.dataset.unvaried
        if not unvaried:
            return verdict
        names = ", ".join(unvaried)
        warning = f"never varied in what was recorded or driven, so only filled frames show other values: {names}"
        return replace(verdict, warnings=(*verdict.warnings, warning))


def verdict_of(
    candidates: Mapping[str, Candidate],
    evaluations: Mapping[str, Evaluation],
    limits: Limits,
    devices: Collection[DeviceReport] = (),
) -> Verdict:
    """Assesses every candidate and decides between them."""
    reference = evaluations[FLOAT]
    assessments = [
        assess(candidate, evaluations[name], reference, limits, [d.evidence(name) for d in devices if name in d.tracks])
        for name, candidate in candidates.items()
    ]
    return decide_between(assessments, evaluations, limits)


def origins_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """(N,) ``recorded``, ``rollout``, ``augmented`` or ``filled`` for each frame."""
    names = {"drive": RECORDED, "rollout": ROLLOUT, "filled": FILLED}
    kinds = np.array([names[origin.kind] for origin in dataset.origins])
    augmented = dataset.column("made")[rows] == Made.AUGMENTED
    return np.where(augmented, AUGMENTED, kinds[dataset.column("origin")[rows]])
