"""Drives no dataset can be made of are refused before a run folder appears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.errors import InputError
from quant.policy import Observations, save_policy
from quant.runs.settings import Settings
from quant.runs.steps import import_policy
from tests.tracks import strategies

SEEN = strategies.frames(600, 1, most=2)

REFUSED: dict[str, tuple[str, Callable[[Observations], list[Observations]]]] = {
    "no peers": ("no frame has a peer", lambda seen: [replace(seen, mask=np.zeros_like(seen.mask))]),
    "the same drive": ("the same recording", lambda seen: [seen, seen]),
    "overlapping cuts": ("frames with peers in", lambda seen: [seen[:400], seen[300:]]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    message, drives_of = REFUSED[case]
    save_policy(strategies.policy(), tmp_path / "policy.npz")
    drives = tuple(
        str(strategies.write_drive(tmp_path / f"{number}.npz", seen)) for number, seen in enumerate(drives_of(SEEN))
    )
    with pytest.raises(InputError, match=message) as caught:
        import_policy(tmp_path / "policy.npz", tmp_path / "run", Settings("policy.npz", drives=drives))
    assert all(f"{number}.npz" in str(caught.value.where) for number in range(len(drives)))
    assert not (tmp_path / "run").exists()
