"""A run as the steps and the pages know it: its artifacts, read and checked, and the verdict on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
from quant.evaluation.stress.results import Stress
from quant.observation.coverage import Coverage, assumed_words, physical_ends, undeclared_words
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
        verdict = verdict_of(self.candidates, self.evaluations, limits, self.devices.values(), self.stress)
        columns = self.coverage
        warnings = (*verdict.warnings, *self._warnings(columns))
        return replace(verdict, warnings=warnings, coverage=columns, stress=self.stress)

    def _warnings(self, columns: Sequence[Coverage]) -> Iterator[str]:
        """What the dataset leaves open, and where nobody looked."""
        if self.stress is None:
            yield "not stressed: nobody looked for the worst that the candidates do where their inputs may lie"
        if any(origin.kind == "drive" for origin in self.dataset.origins):
            left_out = {name for name, one in self.evaluations.items() if one.unseen}
            without = [track for track in self.candidates if track not in left_out]
            if without:
                yield (
                    f"nothing unseen was looked at for {', '.join(without)}: held-out frames are of the drives it was "
                    "made of; give two drives or more, or judge the run on a later one: quant evaluate RUN --drive"
                )
        for one in columns:
            for track in one.short:
                ends = physical_ends(one.column, one.represented[track])
                declared = physical_ends(one.column, (one.column.low, one.column.high))
                yield f"{track} cannot represent all of {one.name}: {ends} of {declared}; beyond, it decides as there"
            for track, share in one.saturated.items():
                if share:
                    ends = physical_ends(one.column, one.represented[track])
                    recorded = physical_ends(one.column, one.recorded)
                    yield f"{track} cuts off {share:.2%} of {one.name}: {ends} of what was recorded, {recorded}"
        unvaried = self.dataset.unvaried
        if unvaried:
            names = ", ".join(unvaried)
            yield f"never varied in what was recorded or driven, so only filled frames show other values: {names}"
        yield from (finding.warning for finding in self.dataset.findings)
        undeclared = undeclared_words(self.dataset.contract)
        if undeclared:
            yield f"nobody declared how far these go; trusted only as recorded, with a margin: {undeclared}"
        assumed = assumed_words(self.dataset.contract)
        if assumed:
            yield f"trusted up to what is usual of such a column, for nobody stated these bounds: {assumed}"


def verdict_of(
    candidates: Mapping[str, Candidate],
    evaluations: Mapping[str, Evaluation],
    limits: Limits,
    devices: Collection[DeviceReport] = (),
    stress: Stress | None = None,
) -> Verdict:
    """Assesses every candidate and decides between them."""
    reference = evaluations[FLOAT]
    shown = {name: [device.evidence(name) for device in devices if name in device.tracks] for name in candidates}
    assessments = [
        assess(candidate, evaluations[name], reference, limits, shown[name], stress)
        for name, candidate in candidates.items()
    ]
    return decide_between(assessments, evaluations, limits)


def origins_of(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """(N,) ``recorded``, ``rollout``, ``augmented`` or ``filled`` for each frame."""
    names = {"drive": RECORDED, "rollout": ROLLOUT, "filled": FILLED}
    kinds = np.array([names[origin.kind] for origin in dataset.origins])
    augmented = dataset.column("made")[rows] == Made.AUGMENTED
    return np.where(augmented, AUGMENTED, kinds[dataset.column("origin")[rows]])
