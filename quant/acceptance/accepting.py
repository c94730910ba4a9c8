"""Making a run the baseline, in two steps: what it would take the place of, and the replacing itself.

A baseline is what later runs are held against, so nobody should lower it without noticing: a run that is a regression,
that cannot be compared, or whose predecessor cannot be read is accepted only by force.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quant.acceptance.baseline import Snapshot, load_baseline
from quant.acceptance.comparison import Change, Comparison, compare
from quant.errors import InputError
from quant.files import write_json


@dataclass(frozen=True, eq=False)
class Acceptance:
    """A run that may become the baseline.

    Attributes:
        path: of the baseline.
        baseline: what it would be: the run, with the rules of the one before.
        comparison: of the run with the one before; None where there is none, or none that can be read.
        unreadable: why the present file cannot be read; empty where it can, or there is none.
        useless: why no later run could be held against it, as where every slice is blind; empty where one could.
    """

    path: Path
    baseline: Snapshot
    comparison: Comparison | None
    unreadable: str
    useless: str

    @property
    def objection(self) -> str:
        """Why only force may accept it; empty where nothing speaks against it."""
        return "; ".join(self._objections())

    def _objections(self) -> Iterator[str]:
        if self.unreadable:
            yield f"the present baseline cannot be read, and its rules would be lost: {self.unreadable}"
        if self.comparison is not None and self.comparison.exit_code:
            what = "worse than" if self.comparison.regressions else "not comparable with"
            yield f"{self.baseline.name} is {what} the baseline it would take the place of, {self.comparison.before}"
        if self.useless:
            yield f"no later run could be held against it: {self.useless}"

    @property
    def exit_code(self) -> int:
        """Of a refusal: 1 for a regression, 2 for what cannot be compared; 0 where nothing speaks against it."""
        if self.comparison is not None and self.comparison.exit_code:
            return self.comparison.exit_code
        return 2 if self.objection else 0

    @property
    def dropped(self) -> tuple[str, ...]:
        """Figures the present baseline has and the new one would not: nothing later would be held against them."""
        gone = (Change.MISSING, Change.IGNORED)
        found = () if self.comparison is None else self.comparison.findings
        return tuple(f"{one.subject} {one.name}" for one in found if one.judged and one.change in gone)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "baseline": str(self.path),
            "run": self.baseline.name,
            "winner": self.baseline.winner,
            "status": self.baseline.status,
            "sha256": dict(self.baseline.hashes),
            "objection": self.objection or None,
            "exit_code": self.exit_code,
            "dropped": list(self.dropped),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


def consider(run: Snapshot, path: Path) -> Acceptance:
    """Holds a run against the baseline it would take the place of; writes nothing.

    Raises:
        InputError: no candidate won.
    """
    if run.winner is None:
        raise InputError(
            "every candidate fails a criterion: a baseline needs a winner",
            where=run.name,
            hint="see quant show for what failed",
        )
    useless = compare(run, run).incomparable
    if not path.exists():
        return Acceptance(path, run, None, "", useless)
    try:
        before = load_baseline(path)
    except InputError as error:
        return Acceptance(path, run, None, error.what, useless)
    return Acceptance(path, replace(run, rules=before.rules), compare(before, run), "", useless)


def accept(acceptance: Acceptance) -> None:
    """Makes the run the baseline, whatever speaks against it.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(acceptance.path, acceptance.baseline.to_json())
